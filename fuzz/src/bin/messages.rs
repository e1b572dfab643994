//! What travels between the halves, out of any bytes: updates and reports read as they were written, and no update brings a
//! table to where it should not be. Several updates come one a line, as an edge would get them.

#![no_main]

use dormouse_link::{Base, Gap, Report, Table, Update};
use serde::Serialize;
use serde::de::DeserializeOwned;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut table = Table::default();
    for line in bytes.split(|&byte| byte == b'\n') {
        reads_as_written::<Report>(line);
        let Some(update) = reads_as_written::<Update>(line) else { continue };
        apply(&mut table, &update);
    }
});

fn reads_as_written<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(bytes).ok()?;
    let written = serde_json::to_vec(&value).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<T>(&written).ok().as_ref(), Some(&value));
    Some(value)
}

fn apply(table: &mut Table, update: &Update) {
    let before = table.clone();
    let rejected = match table.apply(update.clone()) {
        Ok(rejected) => rejected,
        Err(Gap::OldTerm { .. } | Gap::Missing { .. } | Gap::Backwards { .. }) => {
            assert_eq!(*table, before, "an update that does not follow changes nothing");
            return;
        }
    };
    assert_eq!((table.term, table.generation), (update.term, update.generation));
    assert!(table.term > before.term || table.generation >= before.generation, "it only rises");
    for (id, object) in &table.objects {
        assert_eq!(*id, object.id());
        assert_eq!(object.check(), Ok(()), "nothing is served that may not be");
    }
    let bad = update.put.iter().filter(|object| object.check().is_err()).count();
    assert_eq!(rejected.len(), bad, "each bad object is refused, and no other");
    // An edge that lost its place, and one that did not, believe the same.
    let mut lost = Table::default();
    assert_eq!(lost.apply(table.snapshot()), Ok(Vec::new()));
    assert_eq!(lost, *table);
    if update.base == Base::Snapshot || before.term == table.term {
        let mut followed = before.clone();
        let mut difference = before.diff(table);
        if before.term != table.term {
            difference.base = Base::Snapshot;
            difference = Update { put: table.snapshot().put, ..difference };
        }
        assert_eq!(followed.apply(difference), Ok(Vec::new()));
        assert_eq!(followed, *table);
    }
}
