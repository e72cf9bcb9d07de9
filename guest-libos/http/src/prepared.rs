//! Headers that are written once and sent often. In a second in which its file is asked for again a header is handed
//! out by reference; in the next second only its date is written anew. A header that someone still holds, for
//! instance for retransmission, is never touched: then a copy gets the new date.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;

use crate::Status;
use crate::response::{DateText, replace_date};

/// Places for prepared headers. Direct-mapped, so that its memory is bounded whatever the number of files; headers
/// that share a place drive each other out.
#[derive(Debug)]
pub(crate) struct PreparedHeaders {
    places: Box<[Place]>,
    scratch: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
struct Place {
    key: u64,
    unix_seconds: u64,
    header: Option<Rc<[u8]>>,
}

impl PreparedHeaders {
    /// At least `places` places.
    pub(crate) fn new(places: usize) -> PreparedHeaders {
        PreparedHeaders {
            places: vec![Place::default(); places.next_power_of_two()].into_boxed_slice(),
            // More than any header without a location.
            scratch: Vec::with_capacity(1024),
        }
    }

    /// The header with this key as of this second. From `settled_unix_seconds` on nothing in it but the date depends
    /// on the time. `write` writes it where there is none to go on from.
    #[inline]
    pub(crate) fn get(
        &mut self,
        key: u64,
        status: Status,
        unix_seconds: u64,
        date: &DateText,
        settled_unix_seconds: u64,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Rc<[u8]> {
        let mask = self.places.len() - 1;
        let place = &mut self.places[key as usize & mask];
        if let Some(header) = &mut place.header
            && place.key == key
        {
            if place.unix_seconds == unix_seconds {
                return Rc::clone(header);
            }
            if place.unix_seconds.min(unix_seconds) >= settled_unix_seconds {
                if Rc::get_mut(header).is_none() {
                    *header = Rc::from(&header[..]);
                }
                if let Some(header) = Rc::get_mut(header) {
                    replace_date(header, status, date);
                }
                place.unix_seconds = unix_seconds;
                return Rc::clone(header);
            }
        }
        write(&mut self.scratch);
        let header: Rc<[u8]> = Rc::from(&self.scratch[..]);
        *place = Place { key, unix_seconds, header: Some(Rc::clone(&header)) };
        header
    }

    /// A header that is not kept.
    pub(crate) fn once(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Rc<[u8]> {
        write(&mut self.scratch);
        Rc::from(&self.scratch[..])
    }
}
