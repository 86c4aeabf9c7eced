//! What several tests share.

use fastrand::Rng;
use journal::{
    Options, Writer,
    storage::{Directory, sim::Disk},
};
use std::sync::Arc;

/// The bytes of the record at `position`: any length, some compressible, different for each.
pub fn record(position: u64) -> Vec<u8> {
    let mut rng = Rng::with_seed(position);
    let length = rng.usize(0..900) / (1 + rng.usize(0..9));
    let alphabet = rng.choice([1, 4, 256]).unwrap();
    (0..length).map(|_| rng.u16(..alphabet) as u8).collect()
}

/// A directory for the journal.
pub fn dir(disk: &Disk) -> Arc<dyn Directory> {
    Arc::new(disk.clone())
}

/// Options that lead to many segments.
pub fn small() -> Options {
    Options { segment_size: 4096, ..Options::default() }
}

/// Appends the records from `first` to `last`, in batches of up to `batch` records.
pub fn append(writer: &Writer, first: u64, last: u64, batch: u64) {
    for position in first..=last {
        writer.append_more(position, &record(position)).unwrap();
        if position % batch == 0 {
            writer.flush_now().unwrap();
        }
    }
}
