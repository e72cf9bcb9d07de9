//! What a host remembers about IP besides its configuration: datagrams that arrive in pieces, how large packets may be, and how many answers it has
//! given to whoever asks too often. Nothing here reads or writes a header, and addresses may be of either version.

pub(crate) mod path_mtu;
pub(crate) mod rate_limit;
pub(crate) mod reassembly;
