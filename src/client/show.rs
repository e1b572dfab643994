//! How things look: tables, times, and a sign of life while somebody waits.

use std::future::Future;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

pub(super) use crate::plain::plain;

/// Who waits longer than this gets to see that something is going on.
const PATIENCE: Duration = Duration::from_secs(1);
const SPINNER_STEP: Duration = Duration::from_millis(100);

/// A table with a header; each line ends with a line's end.
pub(super) fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    render(table, rows)
}

/// A table of names and values.
pub(super) fn pairs(rows: impl IntoIterator<Item = [String; 2]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    render(table, rows.into_iter())
}

fn render<const N: usize>(mut table: Table, rows: impl Iterator<Item = [String; N]>) -> String {
    for row in rows {
        table.add_row(row.map(|cell| plain(&cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

/// A line for people. That nobody listens changes nothing.
pub(super) fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", plain(line.trim_end()));
}

/// Now, in the API's terms.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How long ago that was. Clocks differ: what seems to lie ahead is now.
pub(super) fn ago(at: u64, now: u64) -> String {
    match now.saturating_sub(at) / 1_000 {
        0 => "now".to_owned(),
        seconds @ ..120 => format!("{seconds} s ago"),
        seconds @ ..7_200 => format!("{} min ago", seconds / 60),
        seconds @ ..172_800 => format!("{} h ago", seconds / 3_600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

/// A time as the command line takes it.
pub(super) fn span(milliseconds: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let whole = units.iter().find(|(unit, _)| milliseconds >= *unit && milliseconds.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{milliseconds}ms"), |(unit, name)| format!("{}{name}", milliseconds / unit))
}

/// A size as the command line takes it.
pub(super) fn size(bytes: u64) -> String {
    let units = [(1_u64 << 30, "g"), (1 << 20, "m"), (1 << 10, "k")];
    let whole = units.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{bytes} bytes"), |(unit, name)| format!("{}{name}", bytes / unit))
}

/// A number of thousandths as the command line takes it.
pub(super) fn thousandths(milli: u64) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A sign of life on stderr, where that is a terminal; elsewhere nothing.
pub(super) struct Spinner(ProgressBar);

impl Spinner {
    pub(super) fn new(what: &str) -> Self {
        let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner().with_style(style).with_message(what.to_owned());
        bar.enable_steady_tick(SPINNER_STEP);
        Self(bar)
    }

    /// Writes something else meanwhile.
    pub(super) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.0.suspend(write)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Waits for something, and shows it when the wait gets long.
pub(super) async fn patiently<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        // Only borrowed: the other arm drops nothing of it.
        done = &mut work => return done,
        // Nothing is lost with a timer.
        () = tokio::time::sleep(PATIENCE) => {}
    }
    let _spinner = Spinner::new(what);
    work.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_reads_as_the_command_line_takes_it() {
        for (milliseconds, text) in
            [(900_000, "15m"), (2_000, "2s"), (90_000, "90s"), (1_500, "1500ms"), (86_400_000, "1d")]
        {
            assert_eq!(span(milliseconds), text);
        }
        assert_eq!(span(0), "0ms");
    }

    #[test]
    fn limits_read_as_the_command_line_takes_them() {
        assert_eq!([size(512 << 20), size(2 << 30), size(1000)], ["512m", "2g", "1000 bytes"]);
        assert_eq!([2000, 500, 1125, 0, 10_000].map(thousandths), ["2", "0.5", "1.125", "0", "10"]);
    }

    #[test]
    fn the_past_is_told_in_round_numbers() {
        for (before, text) in [(0, "now"), (5_000, "5 s ago"), (600_000, "10 min ago"), (8_000_000, "2 h ago")] {
            assert_eq!(ago(10_000_000 - before, 10_000_000), text);
        }
        assert_eq!(ago(20, 10), "now");
    }
}
