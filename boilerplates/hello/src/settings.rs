//! What the application is told: its environment's variables, and the files that lie beside the program.
//!
//! A file `settings` of `KEY=VALUE` lines says the same as variables do, so that a push can change them; where both
//! name a key, the variable wins.

use std::path::{Path, PathBuf};

pub struct Settings {
    file: String,
    pub message: String,
    pub host_name: String,
}

impl Settings {
    pub fn read() -> Self {
        let folder = std::env::current_exe().ok().and_then(|program| program.parent().map(Path::to_owned));
        let text = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        let beside = |name: &str| folder.as_ref().map(|folder| text(folder.join(name))).unwrap_or_default();
        Self {
            file: beside("settings"),
            message: beside("message.txt").trim().to_owned(),
            host_name: text("/proc/sys/kernel/hostname".into()).trim().to_owned(),
        }
    }

    pub fn get(&self, key: &str) -> Option<String> {
        let in_file = || {
            let pairs = self.file.lines().filter_map(|line| line.split_once('='));
            pairs.filter(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned()).next_back()
        };
        std::env::var(key).ok().or_else(in_file).filter(|value| !value.is_empty())
    }

    pub fn number(&self, key: &str) -> Option<u64> {
        self.get(key)?.trim().parse().ok()
    }

    /// What tells this instance from others, in a few words.
    pub fn summary(&self) -> String {
        let or_none = |key| self.get(key).unwrap_or_else(|| "none".to_owned());
        format!("stage {}, deployment {}, commit {}", or_none("STAGE"), or_none("DEPLOYMENT"), or_none("GIT_COMMIT"))
    }
}
