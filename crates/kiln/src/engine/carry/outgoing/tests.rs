use kiln_carry::Pointer;
use kiln_store::Ids;

use super::super::depot::{New, Published};
use super::*;
use crate::CarryFailure;

/// Keeps what it is given, or refuses all.
#[derive(Default)]
struct Place {
    got: Mutex<Vec<(Digest, Vec<u8>)>>,
    refuses: bool,
}

impl Depot for Place {
    fn pointer(&self) -> Result<Pointer, Error> {
        Ok(Pointer::default())
    }

    fn senders(&self) -> usize {
        1
    }

    fn read(&self, _: &Digest, _: u64, _: bool, _: &mut Vec<u8>) -> Result<(), Error> {
        Err(refused())
    }

    fn put(&self, digest: &Digest, content: &Content<'_>) -> Result<u64, Error> {
        if self.refuses {
            return Err(refused());
        }
        let mut bytes = Vec::new();
        content.reader().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, content.size());
        self.got.lock().unwrap().push((*digest, bytes));
        Ok(content.size())
    }

    fn publish(&self, _: &New<'_>, _: usize) -> Result<Published, Error> {
        Err(refused())
    }
}

fn refused() -> Error {
    Error::Carry(CarryFailure::Nothing { place: "refused".to_owned() })
}

fn pack(number: u8) -> (Pack, Vec<u8>) {
    let bytes = vec![number; 100_000];
    (Pack { digest: Digest::of(&bytes), size: bytes.len() as u64, frames: Vec::new() }, bytes)
}

/// Nobody sends while all of it is taken: whoever reads a cache never waits for a registry.
#[test]
fn what_is_read_waits_for_nobody_and_arrives_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Ids::Single).unwrap();
    let (place, cancel) = (Place::default(), Cancel::new());
    let progress = Mutex::new(Vec::new());
    let told = |sent, of| progress.lock().unwrap().push((sent, of));
    let outgoing = Outgoing::new(&place, &store, &told, &cancel);
    let mut memory = 0;
    for number in 0..20 {
        let (pack, bytes) = pack(number);
        let at = bytes.as_ptr();
        // What is written down gives its memory back at once.
        memory += usize::from(outgoing.take(&pack, bytes).unwrap().as_ptr() != at);
    }
    assert_eq!(memory, IN_MEMORY);
    outgoing.close(None);
    outgoing.send();
    assert_eq!(outgoing.moved().unwrap(), 2_000_000);
    let expected: Vec<_> = (0..20).map(pack).map(|(pack, bytes)| (pack.digest, bytes)).collect();
    assert!(*place.got.lock().unwrap() == expected);
    assert_eq!(progress.lock().unwrap().last(), Some(&(2_000_000, 2_000_000)));
}

/// Two read and four send, as fast as they can: there are never more packs than one for each who reads and those in memory.
#[test]
fn memory_is_bounded_by_number() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Ids::Single).unwrap();
    let (place, cancel) = (Place::default(), Cancel::new());
    let outgoing = Outgoing::new(&place, &store, &|_, _| {}, &cancel);
    let made = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| outgoing.send());
        }
        let readers: Vec<_> = (0..2)
            .map(|reader| {
                let (outgoing, made) = (&outgoing, &made);
                scope.spawn(move || {
                    let mut memory = Vec::new();
                    for number in 0..50 {
                        let (pack, bytes) = pack(reader * 50 + number);
                        if memory.capacity() == 0 {
                            *made.lock().unwrap() += 1;
                        }
                        memory.clear();
                        memory.extend(bytes);
                        memory = outgoing.take(&pack, memory).unwrap();
                    }
                })
            })
            .collect();
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        outgoing.close(None);
    });
    assert!(made.into_inner().unwrap() <= 2 + IN_MEMORY);
    assert_eq!(outgoing.moved().unwrap(), 10_000_000);
    assert_eq!(place.got.lock().unwrap().len(), 100);
}

#[test]
fn what_cannot_be_sent_ends_the_reading() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Ids::Single).unwrap();
    let (place, cancel) = (Place { refuses: true, ..Place::default() }, Cancel::new());
    let outgoing = Outgoing::new(&place, &store, &|_, _| {}, &cancel);
    let (first, bytes) = pack(1);
    outgoing.take(&first, bytes).unwrap();
    outgoing.send();
    let (second, bytes) = pack(2);
    assert!(matches!(outgoing.take(&second, bytes), Err(Error::Carry(CarryFailure::Nothing { .. }))));
    assert!(matches!(outgoing.moved(), Err(Error::Carry(CarryFailure::Nothing { .. }))));
}
