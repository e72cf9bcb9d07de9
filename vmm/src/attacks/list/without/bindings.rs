//! Queues, flows, extents, and what devices are made to do.

use super::Removal;

/// By what was removed.
#[rustfmt::skip]
pub(super) const SEEN: &[Removal] = &[
    Removal { what: "doorbell left mapped", got: &[
        ("doorbell-after-unbind", "rings a doorbell that was given back", "goes on"),
    ] },
    Removal { what: "handles looked up in everybody's tables", got: &[
        ("flow-attacks", "carve out of another's flow", "Ok(())"),
        ("flow-attacks", "direct another's flow", "Ok(())"),
        ("flow-attacks", "direct to another's queues", "Ok(())"),
        ("extent-attacks", "bind another's extent", "Ok(())"),
    ] },
    Removal { what: "generations not compared", got: &[
        ("bad-queue-bind", "bind slot of the capability alone", "Ok(0)"),
    ] },
    Removal { what: "generations not compared, nor whether it is bound", got: &[
        ("bad-queue-bind", "bind another generation", "Ok(0)"),
    ] },
    Removal { what: "handles not compared: the first of the kind", got: &[
        ("bad-queue-bind", "bind no capability", "Ok(0)"),
        ("flow-attacks", "carve out of nothing", "Ok(())"),
        ("flow-attacks", "direct to no queues", "Ok(())"),
        ("flow-attacks", "direct with memory", "Ok(())"),
        ("extent-attacks", "bind no extent", "Ok(())"),
    ] },
    Removal { what: "handles not compared: the first of the kind, bound or not", got: &[
        ("bad-queue-bind", "bind free slot", "Ok(0)"),
        ("bad-queue-bind", "bind capability for memory", "Ok(0)"),
        ("bad-queue-bind", "unbind no capability", "Ok(0)"),
        ("extent-attacks", "bind memory as an extent", "Ok(())"),
    ] },
    Removal { what: "handles not compared: the first of the kind, whatever the slot", got: &[
        ("bad-queue-bind", "bind slot behind the table", "Ok(0)"),
        ("bad-queue-bind", "bind capability max", "Ok(0)"),
    ] },
    Removal { what: "rights not compared", got: &[
        ("flow-attacks", "carve without the right", "Ok(())"),
        ("flow-attacks", "direct what one only carves", "Ok(())"),
        ("flow-attacks", "direct to queues without the right to bind", "Ok(())"),
        ("flow-attacks", "direct with the right to send anything", "Ok(())"),
        ("flow-attacks", "give the right to send anything that a part has not", "Ok(())"),
        ("extent-attacks", "derive writing of what is only read", "Ok(())"),
    ] },
    Removal { what: "ranges of parts not compared", got: &[
        ("extent-attacks", "derive the block before one's extent", "Ok(())"),
        ("extent-attacks", "derive the block behind it", "Ok(())"),
        ("extent-attacks", "derive more blocks than it has", "Ok(())"),
        ("extent-attacks", "derive blocks around the end", "Ok(())"),
    ] },
    Removal { what: "range of queues not compared", got: &[
        ("bad-queue-bind", "bind queue of the next device", "Ok(0)"),
    ] },
    Removal { what: "range and number of queues not compared, the number cut", got: &[
        ("bad-queue-bind", "bind queue 256", "Ok(0)"),
        ("bad-queue-bind", "bind queue 2^32", "Ok(0)"),
    ] },
    Removal { what: "size not looked at", got: &[
        ("bad-queue-bind", "bind size 2^32 + 256", "Ok(0)"),
    ] },
    Removal { what: "size not looked at, nor by the VMM", got: &[
        ("bad-queue-bind", "bind size 0", "Ok(0)"),
        ("bad-queue-bind", "bind size 1", "Ok(0)"),
        ("bad-queue-bind", "bind size 3", "Ok(0)"),
        ("bad-queue-bind", "bind size 255", "Ok(0)"),
        ("bad-queue-bind", "bind size twice the largest", "Ok(0)"),
        ("bad-queue-bind", "bind size 65536", "Ok(0)"),
        ("bad-queue-bind", "bind size max", "Ok(0)"),
    ] },
    Removal { what: "alignment not looked at", got: &[
        ("bad-queue-bind", "bind base + 2048", "Ok(0)"),
    ] },
    Removal { what: "alignment not looked at, nor by the VMM", got: &[
        ("bad-queue-bind", "bind base + 1", "Ok(0)"),
    ] },
    Removal { what: "domain not asked, nor by the VMM", got: &[
        ("bad-queue-bind", "bind page 0", "Ok(0)"),
        ("bad-queue-bind", "bind page before the heap", "Ok(0)"),
    ] },
    Removal { what: "domain not asked, nor bounds by the VMM", got: &[
        ("bad-queue-bind", "bind base is a virtual address", "the VMM dies (SIGSEGV)"),
        ("bad-queue-bind", "bind end reaches out of the heap", "the VMM dies (SIGSEGV)"),
        ("bad-queue-bind", "bind behind the heap", "the VMM dies (SIGSEGV)"),
        ("bad-queue-bind", "bind device registers", "the VMM dies (SIGSEGV)"),
        ("bad-queue-bind", "bind far beyond memory", "the VMM dies (SIGSEGV)"),
    ] },
    Removal { what: "sum of base and length not checked, nor bounds by the VMM", got: &[
        ("bad-queue-bind", "bind base + length overflows", "Ok(0)"),
    ] },
    Removal { what: "rights of an extent not looked at", got: &[
        ("extent-attacks", "bind an extent without rights", "Ok(())"),
    ] },
    Removal { what: "whether it is bound not looked at", got: &[
        ("bad-queue-bind", "unbind not bound", "Ok(0)"),
        ("bad-queue-bind", "unbind again", "Ok(0)"),
        ("bad-queue-bind", "bind again", "Ok(0)"),
        ("extent-attacks", "bind it again", "Ok(())"),
        ("extent-attacks", "unbind what is not bound", "Ok(())"),
    ] },
    Removal { what: "siblings not compared", got: &[
        ("flow-attacks", "carve the port that another has", "Ok(())"),
        ("flow-attacks", "carve the address that another has", "Ok(())"),
    ] },
    Removal { what: "lengths of siblings' prefixes not compared", got: &[
        ("flow-attacks", "carve wider than another's", "Ok(())"),
        ("flow-attacks", "carve all addresses", "Ok(())"),
    ] },
    Removal { what: "order of levels not looked at, nor lengths of prefixes", got: &[
        ("flow-attacks", "carve narrower than another's, past a level", "Ok(())"),
        ("flow-attacks", "carve an address out of a protocol", "Ok(())"),
    ] },
    Removal { what: "order of levels not looked at", got: &[
        ("flow-attacks", "carve a protocol out of a protocol", "Ok(())"),
    ] },
    Removal { what: "order and number of levels not looked at", got: &[
        ("flow-attacks", "carve a level that there is not", "Ok(())"),
    ] },
    Removal { what: "bits and value not looked at, nor lengths of siblings' prefixes", got: &[
        ("flow-attacks", "carve with bits that mean nothing", "Ok(())"),
    ] },
    Removal { what: "value not looked at", got: &[
        ("flow-attacks", "carve a port beyond the last", "Ok(())"),
        ("flow-attacks", "carve a port with another word", "Ok(())"),
    ] },
    Removal { what: "lengths of prefixes and siblings not compared", got: &[
        ("flow-attacks", "carve a prefix longer than an address", "Ok(())"),
    ] },
    Removal { what: "range of pairs not compared", got: &[
        ("flow-attacks", "direct to another's pair with one's own", "Ok(())"),
        ("flow-attacks", "direct to the pair before one's own", "Ok(())"),
        ("flow-attacks", "direct to one's own pair and the next", "Ok(())"),
        ("flow-attacks", "direct to all pairs", "Ok(())"),
        ("flow-attacks", "direct to queues of another device", "Ok(())"),
    ] },
    Removal { what: "rights and bits not looked at", got: &[
        ("flow-attacks", "direct with rights that mean nothing", "Ok(())"),
    ] },
    Removal { what: "bits and range of pairs not compared", got: &[
        ("flow-attacks", "direct with bits that mean nothing", "Ok(())"),
    ] },
    Removal { what: "extents not looked at", got: &[
        ("extent-attacks", "read before anything is bound", "status 0"),
        ("extent-attacks", "read the first block of the disk", "status 0"),
        ("extent-attacks", "read the block before", "status 0"),
        ("extent-attacks", "read the block behind", "status 0"),
        ("extent-attacks", "read across the start", "status 0"),
        ("extent-attacks", "read across the end", "status 0"),
        ("extent-attacks", "write what is only read", "status 0"),
        ("extent-attacks", "write another's block", "status 0"),
        ("extent-attacks", "discard what is only read", "status 0"),
        ("extent-attacks", "discard another's blocks", "status 0"),
        ("extent-attacks", "fill another's blocks with zeros", "status 0"),
        ("extent-attacks", "read after unbinding", "status 0"),
        ("extent-attacks", "read after it was revoked", "status 0"),
    ] },
    Removal { what: "extents and the disk's end not looked at", got: &[
        ("extent-attacks", "read where blocks end", "the VMM's thread panics"),
    ] },
    Removal { what: "generations and kinds not compared", got: &[
        ("extent-attacks", "bind what was revoked", "Ok(())"),
    ] },
    Removal { what: "domain not asked", got: &[
        ("send", "sends the first page", "the device used 1 chains, queue not stopped"),
        ("send", "sends the kernel's memory", "the device used 1 chains, queue not stopped"),
        ("receive", "receives into the first page", "the device used 1 chains, queue not stopped"),
        ("receive", "receives into the kernel's memory", "the device used 1 chains, queue not stopped"),
        ("disk-request", "reads blocks into the kernel's memory", "the device used 1 chains, status 0x0, queue not stopped"),
        ("disk-request", "writes the kernel's memory to the disk", "the device used 1 chains, status 0x0, queue not stopped"),
    ] },
    Removal { what: "domain not asked, nor bounds looked at", got: &[
        ("send", "sends across the end of memory", "the VMM dies (SIGSEGV)"),
        ("send", "sends from behind memory", "the VMM dies (SIGSEGV)"),
        ("send", "sends device registers", "the VMM dies (SIGSEGV)"),
        ("send", "sends the VMM's control register", "the VMM dies (SIGSEGV)"),
        ("send", "sends from a virtual address", "the VMM dies (SIGSEGV)"),
        ("receive", "receives across the end of memory", "the VMM dies (SIGSEGV)"),
        ("receive", "receives behind memory", "the VMM dies (SIGSEGV)"),
        ("receive", "receives into device registers", "the VMM dies (SIGSEGV)"),
        ("receive", "receives into the VMM's control register", "the VMM dies (SIGSEGV)"),
        ("receive", "receives at a virtual address", "the VMM dies (SIGSEGV)"),
        ("disk-request", "reads blocks across the end of memory", "the VMM dies (SIGSEGV)"),
        ("disk-request", "reads blocks into device registers", "the VMM dies (SIGSEGV)"),
        ("send", "sends around the end of addresses", "the VMM's thread panics"),
        ("receive", "receives around the end of addresses", "the VMM's thread panics"),
        ("receive", "receives into four gigabytes", "the device used 1 chains, queue not stopped"),
    ] },
    Removal { what: "domain not asked, nor bounds looked at, nor the length of frames", got: &[
        ("send", "sends four gigabytes", "the device used 1 chains, queue not stopped"),
    ] },
    Removal { what: "empty descriptors let through, and frames without a header", got: &[
        ("send", "sends nothing", "the VMM's thread panics"),
        ("receive", "receives into nothing", "the device used 0 chains, queue not stopped"),
    ] },
    Removal { what: "empty descriptors let through", got: &[
        ("disk-request", "writes nothing to the disk", "the device used 1 chains, status 0x1, queue not stopped"),
    ] },
    Removal { what: "length of chains not bounded", got: &[
        ("send", "sends in a loop", "the VMM goes round for ever"),
        ("receive", "receives in a loop", "the VMM goes round for ever"),
    ] },
    Removal { what: "descriptors that are not there and the length of chains not looked at", got: &[
        ("send", "sends a next that is not there", "the VMM goes round for ever"),
        ("receive", "receives into a next that is not there", "the VMM goes round for ever"),
    ] },
    Removal { what: "descriptors that are not there not looked at", got: &[
        ("send", "sends a head that is not there", "the device used 1 chains, queue not stopped"),
        ("receive", "receives into a head that is not there", "the device used 1 chains, queue not stopped"),
    ] },
    Removal { what: "number of chains not compared", got: &[
        ("send", "sends more chains than entries", "the device used 65 chains, queue not stopped"),
        ("send", "steps back when it sends", "the device used 256 chains, queue not stopped"),
        ("receive", "receives into more chains than entries", "the device used 65 chains, queue not stopped"),
        ("receive", "steps back when it receives", "the device used 256 chains, queue not stopped"),
    ] },
    Removal { what: "tables let through without having been agreed on, nested ones and empty frames, too", got: &[
        ("send", "sends a table and a next", "the VMM's thread panics"),
    ] },
    Removal { what: "tables let through without having been agreed on, empty frames, too, and the domain not asked", got: &[
        ("send", "sends a table of somebody's", "the VMM's thread panics"),
    ] },
    Removal { what: "direction not looked at", got: &[
        ("send", "sends what the device should write", "the device used 1 chains, queue not stopped"),
        ("receive", "receives into what the device should read", "the device used 0 chains, queue not stopped"),
        ("disk-request", "asks the disk without a place for the answer", "the device used 1 chains, status 0xee, queue not stopped"),
    ] },
    Removal { what: "length of the header not looked at", got: &[
        ("disk-request", "asks the disk with a header cut short", "the device used 1 chains, status 0x1, queue not stopped"),
    ] },
    Removal { what: "length of log behind not looked at", got: &[
        ("scribble", "fills the pages that the VMM reads with nonsense", "the VMM reads log for ever"),
    ] },
    Removal { what: "senders not looked up", got: &[
        ("flow-egress", "sent from another's port", "on the wire"),
        ("flow-egress", "sent from another's address", "on the wire"),
        ("flow-egress", "sent from somebody's address", "on the wire"),
        ("flow-egress", "sent from no address", "on the wire"),
        ("flow-egress", "sent from the broadcast address", "on the wire"),
        ("flow-egress", "sent by another protocol", "on the wire"),
        ("flow-egress", "sent as ICMP", "on the wire"),
        ("flow-egress", "sent as ICMP about another's segment", "on the wire"),
        ("flow-egress", "sent as a later fragment of nothing", "on the wire"),
        ("flow-egress", "sent with a header cut short", "on the wire"),
        ("flow-egress", "sent with a header of no length", "on the wire"),
        ("flow-egress", "sent as ARP in another's name", "on the wire"),
        ("flow-egress", "sent by IPv6", "on the wire"),
        ("flow-egress", "sent behind a VLAN tag", "on the wire"),
        ("flow-egress", "sent by no protocol that is known", "on the wire"),
    ] },
    Removal { what: "no drain", got: &[
        ("revoke-in-flight", "read under way, capability dropped", "under way true, then 512 words arrived"),
        ("revoke-in-flight", "read under way, rights of devices taken", "under way true, then 512 words arrived"),
        ("revoke-in-flight", "read under way, its rings dropped, too", "under way true, then 512 words arrived"),
    ] },
    Removal { what: "handles not compared: the first of the kind; nor siblings", got: &[
        ("flow-attacks", "carve out of memory", "Ok(())"),
    ] },
];
