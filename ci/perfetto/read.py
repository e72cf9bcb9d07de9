"""Reads a trace of `exovm trace` back with the schema that the `perfetto` package carries, and checks what a picture of it would
show: slices that nest, one time line for guest and VMM, and arrows that lead from a received frame through the guest to the frame
that answers it. Prints what it found; ends with status 1 and a reason if something is not so.

    read.py FILE [--requests N] [--cut]     at least N requests can be followed; a file that was cut off has less
    read.py FILE --kvm                      what KVM says is there, and lies within the guest's time
"""

import argparse
import bisect
import sys
from collections import Counter, defaultdict

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TracePacket, TrackEvent


def fail(why):
    sys.exit(f"{sys.argv[0]}: {why}")


def read(path):
    trace = Trace()
    with open(path, "rb") as file:
        trace.ParseFromString(file.read())
    tracks, events = {}, []
    names = defaultdict(dict)
    for packet in trace.packet:
        sequence = packet.trusted_packet_sequence_id
        if packet.sequence_flags & TracePacket.SEQ_INCREMENTAL_STATE_CLEARED:
            names[sequence] = {}
        for name in packet.interned_data.event_names:
            names[sequence][name.iid] = name.name
        if packet.HasField("track_descriptor"):
            descriptor = packet.track_descriptor
            name = descriptor.thread.thread_name or descriptor.process.process_name or descriptor.name
            tracks[descriptor.uuid] = (name, descriptor.parent_uuid)
        if packet.HasField("track_event"):
            event = packet.track_event
            if event.name_iid and event.name_iid not in names[sequence]:
                fail(f"an event has name {event.name_iid}, which nobody said")
            events.append((packet.timestamp, event, names[sequence].get(event.name_iid, "")))
    return tracks, events


def nested(tracks, events):
    """Slices by track, as (begin, end, name, flows); complains where begins and ends do not match."""
    slices, open_slices, unmatched = defaultdict(list), defaultdict(list), Counter()
    for timestamp, event, name in sorted(events, key=lambda entry: entry[0]):
        if event.track_uuid not in tracks:
            fail(f"event {name!r} is on a track that nobody described")
        stack = open_slices[event.track_uuid]
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            stack.append((timestamp, name, [*event.flow_ids, *event.terminating_flow_ids]))
        elif event.type == TrackEvent.TYPE_SLICE_END:
            if stack:
                begin, what, flows = stack.pop()
                slices[event.track_uuid].append((begin, timestamp, what, flows))
            else:
                unmatched[tracks[event.track_uuid][0]] += 1
    return slices, sum(map(len, open_slices.values())), unmatched


def requests(events):
    """Received frames that the guest answered, each with the moments of its way."""
    received, worked, answers, sent = {}, {}, {}, {}
    for timestamp, event, name in events:
        flows = [*event.flow_ids, *event.terminating_flow_ids]
        if name == "frame received":
            received[flows[0]] = timestamp
        elif name == "tcp input" and flows:
            worked[flows[0]] = timestamp
        elif name == "frame queued" and len(flows) == 2:
            answers.setdefault(flows[1], (timestamp, flows[0]))
        elif name == "frame sent":
            sent[flows[0]] = timestamp
    whole = []
    for frame, (queued, answer) in answers.items():
        if frame in received and frame in worked and answer in sent:
            way = [received[frame], worked[frame], queued, sent[answer]]
            if way != sorted(way):
                fail(f"frame {frame:#x} goes back in time: {way}")
            whole.append(way)
    return whole


def kvm(tracks, events, slices):
    """Returns of KVM_RUN, as KVM says; complains if one is not within the guest's time as the VMM stamped it."""
    CLOSE_NS = 20_000
    uuid = {name: uuid for uuid, (name, _) in tracks.items()}
    if "KVM, vcpu" not in uuid:
        fail("there is no track of what KVM does")
    guest = sorted((begin, end) for begin, end, name, _ in slices[uuid["vcpu"]] if name == "guest")
    returns = [time for time, event, name in events if event.track_uuid == uuid["KVM, vcpu"] and name.startswith("to the VMM")]
    # Where the VMM's side begins and ends.
    returns = [time for time in returns if guest[0][0] < time < guest[-1][1]]
    for time in returns:
        begin, end = guest[max(bisect.bisect_right(guest, (time + CLOSE_NS,)) - 1, 0)]
        if not begin - CLOSE_NS <= time <= end + CLOSE_NS:
            fail(f"KVM_RUN returns at {time}, and the guest had {begin} to {end}")
    if not returns:
        fail("KVM_RUN never returned")
    print(f"{len(returns)} returns of KVM_RUN within the guest's time")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("file")
    arguments.add_argument("--requests", type=int, default=1)
    arguments.add_argument("--cut", action="store_true")
    arguments.add_argument("--kvm", action="store_true")
    arguments = arguments.parse_args()
    tracks, events = read(arguments.file)
    slices, still_open, unmatched = nested(tracks, events)
    if still_open and not arguments.cut:
        fail(f"{still_open} slices have no end")
    # A span that was entered before the recording began has no beginning, and no end either.
    if unmatched:
        fail(f"ends without a beginning: {dict(unmatched)}")
    whole = requests(events)
    if len(whole) < arguments.requests:
        fail(f"{len(whole)} requests can be followed from frame to frame, {arguments.requests} were expected")
    for uuid, (name, parent) in sorted(tracks.items()):
        if uuid in slices:
            seconds = sum(end - begin for begin, end, _, _ in slices[uuid]) / 1e9
            print(f"{tracks.get(parent, ('',))[0]:24} {name:28} {len(slices[uuid]):8} slices {seconds:9.6f} s")
    if arguments.kvm:
        kvm(tracks, events, slices)
    took = sorted(way[-1] - way[0] for way in whole)
    if took:
        print(f"{len(whole)} requests from frame to frame, median {took[len(took) // 2] / 1000:.1f} us")


main()
