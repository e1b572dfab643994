//! How many connections the process's descriptors are enough for.
//!
//! A connection takes two, its own and one to its instance; so does each stream beyond its first, at most; an instance's connection may outlive its visitor in a pool. What
//! everything else needs is set aside, so that nothing of it ever fails for a full front.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Limits;

/// For everything that is no visitor's connection and no listening socket: files, logs, the store, admin connections. Of a
/// process with few descriptors, a quarter.
const RESERVE: usize = 256;
/// How many parts of the rest the pools of idle connections to instances may have, of all.
const POOL_PART: (usize, usize) = (1, 8);
/// Where the system sets no limit.
const PLENTY: usize = 1 << 20;

/// Allows the process as many descriptors as its administrator lets it have, and returns how many that are. The usual limit
/// is for programs that cannot deal with more.
pub fn raise() -> io::Result<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(maximum.unwrap_or(u64::MAX))
}

/// How many the process may have.
pub(crate) fn allowed() -> usize {
    getrlimit(Resource::Nofile)
        .current
        .and_then(|count| usize::try_from(count).ok())
        .map_or(PLENTY, |count| count.min(PLENTY))
}

/// What descriptors are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Connections of visitors.
    pub(crate) connections: usize,
    /// Idle connections to instances that one worker keeps.
    pub(crate) pooled: usize,
}

/// How many of `allowed` are for connections and pools, where `listening` are in use already.
pub(crate) fn usable(allowed: usize, listening: usize) -> usize {
    allowed.saturating_sub(listening).saturating_sub(RESERVE.min(allowed / 4))
}

/// Shares `allowed` descriptors out, `listening` of which are in use already.
pub(crate) fn share(allowed: usize, listening: usize, workers: usize, limits: &Limits) -> Shares {
    let rest = usable(allowed, listening);
    let pooled = limits.pooled.min(rest * POOL_PART.0 / POOL_PART.1 / workers.max(1)).max(1);
    let connections = rest.saturating_sub(pooled * workers) / 2;
    Shares { connections: limits.connections.min(connections.max(1)), pooled }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_and_pools_never_take_what_is_set_aside() {
        let limits = Limits::default();
        for allowed in [64, 256, 1024, 20_000, 1 << 20] {
            for (listening, workers) in [(1, 1), (64, 4), (129, 16)] {
                let Shares { connections, pooled } = share(allowed, listening, workers, &limits);
                let used = connections * 2 + pooled * workers;
                let left = allowed.saturating_sub(listening);
                let case = format!("{allowed} {listening} {workers}: {connections} {pooled}");
                assert!(connections > 0 && pooled > 0, "{case}");
                assert!(used + RESERVE.min(allowed / 4) <= left || left < allowed / 2, "{case}");
            }
        }
        let many = share(1 << 20, 129, 4, &limits);
        assert_eq!(many.pooled, limits.pooled, "a large process is held by its other limits");
        assert!(many.connections > 500_000);
        let few = Limits { connections: 10, ..Limits::default() };
        assert_eq!(share(1 << 20, 129, 4, &few).connections, 10);
    }
}
