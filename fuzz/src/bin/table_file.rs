//! The table file, out of any bytes: what is taken is a table that an edge serves whole, and reads as it was written.

#![no_main]

use dormouse_link::{Table, TableFile};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(file) = TableFile::parse(text) else { return };
    let written = serde_json::to_string(&file).expect("what was read can be written");
    assert_eq!(TableFile::parse(&written).ok().as_ref(), Some(&file));
    let table = file.table(&Table::default(), Vec::new());
    let mut served = Table::default();
    assert_eq!(served.apply(table.snapshot()), Ok(Vec::new()), "an edge takes all of it");
    assert_eq!(served, table);
    let again = file.table(&table, Vec::new());
    assert!(table.diff(&again).put.is_empty(), "what did not change is not sent again");
});
