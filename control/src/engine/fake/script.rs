//! How an image of the fake engine behaves: read from its Dockerfile.
//!
//! Comments of the form `# fake: WORD VALUE` are for the fake alone; `ENV PORT` and `EXPOSE` mean what they mean to Docker.
//! What it does not know is a failed build, so that a test with a spelling mistake does not pass by chance.

use std::time::Duration;

use crate::engine::LogLine;

/// What an image does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    /// `body TEXT`: the first line of each answer.
    pub(super) body: String,
    /// `status CODE`: of each answer, else 200.
    pub(super) status: Option<u16>,
    /// `boot TIME`: passes before it listens, or exits.
    pub(super) boot: Duration,
    /// `answer-after TIME`: each answer takes so long.
    pub(super) answer_after: Duration,
    /// `exit CODE`: instead of listening.
    pub(super) exit: Option<i64>,
    /// `exit-after-ready`: exits with code 1 as soon as it answered once.
    pub(super) exit_after_ready: bool,
    /// `drop-at-stop`: told to stop, it ends at once and drops the requests that run.
    pub(super) drop_at_stop: bool,
    /// `never-answer`: takes requests, and that is all.
    pub(super) never_answer: bool,
    /// `log TEXT`, `error TEXT`: written at each start.
    pub(super) log: Vec<LogLine>,
    /// `cannot-start WORDS`: the engine cannot start it.
    pub(super) cannot_start: Option<String>,
    /// `fail-build WORDS`: the build fails.
    pub(super) fail_build: Option<String>,
    /// `build-log COUNT`: the build writes so many lines of a KiB.
    pub(super) build_log: u64,
    /// `slow-build TIME`: the build takes so long.
    pub(super) slow_build: Duration,
    pub(super) exposed: Vec<u16>,
    pub(super) port: Option<String>,
}

impl Script {
    /// Reads a Dockerfile; the error is for its developer.
    pub(super) fn parse(dockerfile: &str) -> Result<Self, String> {
        let mut script = Self::default();
        for line in dockerfile.lines() {
            let line = line.trim();
            if let Some(instruction) = line.strip_prefix("# fake:") {
                let known = script.take(instruction.trim());
                known.ok_or_else(|| format!("the fake engine does not understand {line:?}"))?;
            } else if let Some(ports) = line.strip_prefix("EXPOSE ") {
                let tcp = ports.split_whitespace().map(|port| port.strip_suffix("/tcp").unwrap_or(port));
                script.exposed.extend(tcp.filter_map(|port| port.parse::<u16>().ok()));
            } else if let Some(port) = line.strip_prefix("ENV PORT") {
                script.port = Some(port.trim_start_matches(['=', ' ']).to_owned());
            }
        }
        script.exposed.sort_unstable();
        script.exposed.dedup();
        Ok(script)
    }

    fn take(&mut self, instruction: &str) -> Option<()> {
        let (word, value) = instruction.split_once(' ').unwrap_or((instruction, ""));
        let value = value.trim();
        match word {
            "body" => self.body = value.to_owned(),
            "status" => self.status = Some(value.parse().ok()?),
            "boot" => self.boot = time(value)?,
            "answer-after" => self.answer_after = time(value)?,
            "exit" => self.exit = Some(value.parse().ok()?),
            "exit-after-ready" => self.exit_after_ready = true,
            "drop-at-stop" => self.drop_at_stop = true,
            "never-answer" => self.never_answer = true,
            "log" => self.log.push(LogLine { stderr: false, text: value.to_owned() }),
            "error" => self.log.push(LogLine { stderr: true, text: value.to_owned() }),
            "cannot-start" => self.cannot_start = Some(value.to_owned()),
            "fail-build" => self.fail_build = Some(value.to_owned()),
            "build-log" => self.build_log = value.parse().ok()?,
            "slow-build" => self.slow_build = time(value)?,
            _ => return None,
        }
        Some(())
    }
}

fn time(text: &str) -> Option<Duration> {
    match text.strip_suffix("ms") {
        Some(number) => number.parse().ok().map(Duration::from_millis),
        None => text.strip_suffix('s')?.parse().ok().map(Duration::from_secs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dockerfile_is_a_script() {
        let text = "# fake: body two words\n# fake: boot 50ms\nFROM scratch\nEXPOSE 9090/tcp 80 53/udp\nENV PORT 8080\n\
                    # fake: exit 3\n# fake: log a b\n# fake: exit-after-ready\n";
        let script = Script::parse(text).unwrap();
        assert_eq!(script.body, "two words");
        assert_eq!(script.boot, Duration::from_millis(50));
        assert_eq!(script.exposed, [80, 9090]);
        assert_eq!(script.port.as_deref(), Some("8080"));
        assert_eq!((script.exit, script.exit_after_ready), (Some(3), true));
        assert_eq!(script.log, [LogLine { stderr: false, text: "a b".to_owned() }]);
        assert_eq!(Script::parse("ENV PORT=81").unwrap().port.as_deref(), Some("81"));
    }

    #[test]
    fn what_is_not_understood_is_not_ignored() {
        assert!(Script::parse("# fake: exti 1").is_err());
        assert!(Script::parse("# fake: boot soon").is_err());
    }
}
