//! What a device must not be made to read or write: the environment writes descriptors of its own choice into a queue of
//! its own and takes turns. The log says how far the device got.

use crate::binding::pages_for;
use crate::queue::{NEXT, Queue, WRITE};
use crate::{Case, HELD, number};
use abi::layout::WINDOW_VA;

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const CASES: &[Case] = &[
    ("send", |arguments| hostile(SEND, arguments)),
    ("receive", |arguments| hostile(RECEIVE, arguments)),
    ("disk-request", disk_request),
];

const RECEIVE: u32 = 0;
const SEND: u32 = 1;
/// An Ethernet frame that the tests know: local experimental EtherType 0x88B5, behind an empty virtio header.
const GOOD_FRAME: [u8; 12 + 60] = {
    let mut frame = [0; 12 + 60];
    let mut i = 0;
    while i < 12 {
        frame[12 + i] = 0xFF;
        i += 1;
    }
    (frame[12 + 12], frame[12 + 13]) = (0x88, 0xB5);
    frame[12 + 14] = b'!';
    frame
};
/// `send|receive GPA LEN FLAGS NEXT HEAD INDEX`: one descriptor, and how it is offered. Afterwards the queue is bound
/// again and used properly, which must work.
fn hostile(number_of_queue: u32, arguments: Arguments<'_>) -> Option<u32> {
    let gpa = number(arguments.next())?;
    let mut word = || number(arguments.next()).map(|value| value as u32);
    let (len_bytes, flags, next, head, index) = (word()?, word()?, word()?, word()?, word()?);
    let queue = Queue::new(number_of_queue)?;
    log::info!("probe: bind: {:?}", queue.bind());
    queue.descriptor(0, gpa, len_bytes, flags as u16, next as u16);
    queue.offer(head as u16, index as u16);
    log::info!("probe: the device used {} chains", queue.used(1));
    log::info!("probe: unbind: {:?}", queue.unbind());

    let queue = Queue::new(number_of_queue)?;
    log::info!("probe: bind: {:?}", queue.bind());
    let buffer = pages_for(4096)?;
    if number_of_queue == SEND {
        // SAFETY: a page of the heap that nobody else uses.
        unsafe { ((WINDOW_VA + buffer) as *mut [u8; GOOD_FRAME.len()]).write(GOOD_FRAME) };
        queue.descriptor(0, buffer, GOOD_FRAME.len() as u32, 0, 0);
    } else {
        queue.descriptor(0, buffer, 4096, WRITE, 0);
    }
    queue.offer(0, 1);
    log::info!("probe: then the device used {} chains", queue.used(1));
    Some(HELD)
}

/// `disk-request KIND DATA-GPA DATA-LEN DATA-FLAGS HEADER-LEN STATUS-FLAGS`: a request of header, data and status to the disk
/// that is device 0, with what is wrong about it. Afterwards the queue is bound again and a block is read properly.
fn disk_request(arguments: Arguments<'_>) -> Option<u32> {
    let kind = number(arguments.next())? as u32;
    let data = number(arguments.next())?;
    let mut word = || number(arguments.next()).map(|value| value as u32);
    let (data_bytes, data_flags, header_bytes, status_flags) = (word()?, word()?, word()?, word()?);
    let page = pages_for(4096)?;
    let request =
        |kind: u32, data: u64, data_bytes: u32, data_flags: u16, header_bytes: u32, status_flags: u16| {
            let queue = Queue::new(0)?;
            log::info!("probe: bind: {:?}", queue.bind());
            // SAFETY: a page of the heap that nobody else uses; the device may read and write it at any time.
            unsafe {
                ((WINDOW_VA + page) as *mut [u64; 2]).write_volatile([u64::from(kind), 0]);
                ((WINDOW_VA + page + 512) as *mut u8).write_volatile(0xEE);
            }
            queue.descriptor(0, page, header_bytes, NEXT, 1);
            queue.descriptor(1, data, data_bytes, data_flags | NEXT, 2);
            queue.descriptor(2, page + 512, 1, status_flags, 0);
            queue.offer(0, 1);
            let used = queue.used(1);
            // SAFETY: as above.
            let status = unsafe { ((WINDOW_VA + page + 512) as *const u8).read_volatile() };
            log::info!("probe: the device used {used} chains, status {status:#x}");
            log::info!("probe: unbind: {:?}", queue.unbind());
            Some(())
        };
    request(kind, data, data_bytes, data_flags as u16, header_bytes, status_flags as u16)?;
    request(0, pages_for(4096)?, 4096, WRITE, 16, WRITE)?;
    Some(HELD)
}
