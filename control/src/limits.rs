//! What an instance may use of its machine. Every instance has all three limits; there is no "unlimited", because then one
//! application could take down all others.
//!
//! They are set of an environment, kept with each deployment like its variables, and given to the engine with each instance:
//! what was deployed is what runs, however often it is woken.

use std::ops::RangeInclusive;

const MIB: u64 = 1024 * 1024;

/// Below, the engine's own helper that starts a container may not fit; above, nobody has such a machine.
const MEMORY_BYTES: RangeInclusive<u64> = 16 * MIB..=1024 * 1024 * MIB;

/// An engine gives no less than a hundredth of a processor.
const CPUS_MILLI: RangeInclusive<u64> = 10..=1_024_000;

/// Below, the engine's own helper that starts a container may not fit; above, a kernel has no numbers left.
const PROCESSES: RangeInclusive<u64> = 32..=1_000_000;

/// The limits of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory, in bytes. There is no swap beyond it: who goes beyond is killed.
    pub memory_bytes: u64,
    /// Processors, in thousandths: 500 is half of one. Who wants more is slowed down.
    pub cpus_milli: u64,
    /// Processes and threads together. Who wants more gets an error from the kernel.
    pub processes: u64,
}

impl Default for Limits {
    /// What most web applications do well with. The migration that introduced limits says the same.
    fn default() -> Self {
        Self { memory_bytes: 512 * MIB, cpus_milli: 2_000, processes: 512 }
    }
}

/// A limit that cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Of memory.
    #[error("memory is from 16m to 1024g, not {0} bytes")]
    Memory(u64),
    /// Of processors.
    #[error("cpus are from 0.01 to 1024, not {}.{:03}", .0 / 1000, .0 % 1000)]
    Cpus(u64),
    /// Of processes.
    #[error("processes are from 32 to 1000000, not {0}")]
    Processes(u64),
}

impl Limits {
    /// These limits, if an engine can keep them.
    pub fn checked(self) -> Result<Self, LimitError> {
        if !MEMORY_BYTES.contains(&self.memory_bytes) {
            return Err(LimitError::Memory(self.memory_bytes));
        }
        if !CPUS_MILLI.contains(&self.cpus_milli) {
            return Err(LimitError::Cpus(self.cpus_milli));
        }
        if !PROCESSES.contains(&self.processes) {
            return Err(LimitError::Processes(self.processes));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_no_engine_can_keep_are_refused() {
        let usual = Limits::default();
        assert_eq!(usual.checked(), Ok(usual));
        for memory_bytes in [0, 16 * MIB - 1, u64::MAX] {
            assert_eq!(Limits { memory_bytes, ..usual }.checked(), Err(LimitError::Memory(memory_bytes)));
        }
        for cpus_milli in [0, 9, u64::MAX] {
            assert_eq!(Limits { cpus_milli, ..usual }.checked(), Err(LimitError::Cpus(cpus_milli)));
        }
        for processes in [0, 31, u64::MAX] {
            assert_eq!(Limits { processes, ..usual }.checked(), Err(LimitError::Processes(processes)));
        }
        let words = LimitError::Cpus(5).to_string();
        assert_eq!(words, "cpus are from 0.01 to 1024, not 0.005");
    }
}
