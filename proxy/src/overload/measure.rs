//! What this process uses, and what it may: asked of the kernel, which has it in memory. What it does not say counts as nothing
//! used and no limit.

use std::fs;
use std::path::{Path, PathBuf};

/// The part of a machine's memory that an edge may take which was not told otherwise: the rest is for the others.
const MACHINE_PART: (u64, u64) = (3, 4);

/// Where control groups are.
const GROUPS: &str = "/sys/fs/cgroup";

/// Bytes of memory that the process has.
pub(super) fn memory() -> u64 {
    fs::read_to_string("/proc/self/status").ok().and_then(|text| kib(&text, "VmRSS:")).unwrap_or_default()
}

/// Bytes that it may have: what its control group has, or its part of the machine.
pub(super) fn memory_limit() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| kib(&text, "MemTotal:"));
    let part = machine.map(|total| total / MACHINE_PART.1 * MACHINE_PART.0);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    group_limit(Path::new(GROUPS), &groups).into_iter().chain(part).min().unwrap_or(u64::MAX)
}

/// Descriptors that are open.
pub(super) fn descriptors() -> usize {
    let folder = "/proc/self/fd";
    // Linux tells since 6.2; before, its folders have no size, and what is in this one is counted.
    let told = fs::metadata(folder).map_or(0, |data| data.len());
    match usize::try_from(told) {
        Ok(count @ 1..) => count,
        _ => fs::read_dir(folder).map_or(0, Iterator::count),
    }
}

/// A line of `/proc` that is a number of KiB, in bytes.
fn kib(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The least that a control group (cgroups(7), both versions) or one above it may have.
fn group_limit(root: &Path, groups: &str) -> Option<u64> {
    let file = |line: &str| -> Option<(PathBuf, String, &str)> {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let path = path.trim_start_matches('/').to_owned();
        match controllers {
            "" => Some((root.to_owned(), path, "memory.max")),
            some if some.split(',').any(|one| one == "memory") => {
                Some((root.join("memory"), path, "memory.limit_in_bytes"))
            }
            _ => None,
        }
    };
    let limits = groups.lines().filter_map(file).flat_map(|(root, path, name)| {
        let folders: Vec<_> = Path::new(&path).ancestors().map(|part| root.join(part).join(name)).collect();
        // "max", or nothing that can be read, is no limit.
        folders.into_iter().filter_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok())
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_what_this_process_uses() {
        let (memory, limit) = (memory(), memory_limit());
        assert!(memory > 1 << 20 && memory < limit, "{memory} of {limit}");
        let before = descriptors();
        let more: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").expect("it is there")).collect();
        // Other tests open and close some meanwhile.
        assert!(descriptors() >= before + 25, "{before}");
        drop(more);
    }

    #[test]
    fn the_limit_is_the_least_of_a_control_group_and_those_above() {
        let root = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("not the root")).expect("made");
            fs::write(path, text).expect("written");
        };
        let limit = |groups: &str| group_limit(root.path(), groups);
        assert_eq!(limit("0::/\n"), None);
        write("a/memory.max", "300\n");
        write("a/b/memory.max", "max\n");
        write("a/b/c/memory.max", "500\n");
        assert_eq!(limit("0::/a/b/c\n"), Some(300));
        assert_eq!(limit("0::/a/b\n"), Some(300));
        write("memory/d/memory.limit_in_bytes", "70\n");
        assert_eq!(limit("9:cpu,memory:/d\n0::/a\n"), Some(70));
        assert_eq!(limit("1:name=systemd:/d\n"), None);
        // The one that a container sees as the uppermost.
        write("memory.max", "20\n");
        assert_eq!(limit("0::/\n"), Some(20));
        for odd in ["", ":", "0:", "0::", "x", "0::/../..\n"] {
            let _ = limit(odd);
        }
    }

    #[test]
    fn only_a_whole_line_counts() {
        assert_eq!(kib("VmPeak:\t  9 kB\nVmRSS:\t    12 kB\n", "VmRSS:"), Some(12 << 10));
        for odd in ["", "VmRSS:", "VmRSS: 12", "VmRSS: x kB", "VmRSS: 99999999999999999999 kB"] {
            assert_eq!(kib(odd, "VmRSS:"), None, "{odd:?}");
        }
    }
}
