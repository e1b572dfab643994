//! What is pushed: the demo application, told how to behave in the words of both engines.

use std::fs;
use std::path::Path;

use dormouse::boilerplate;

/// An application's source.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    message: String,
    settings: String,
    dockerfile: Option<String>,
}

impl Source {
    /// One that answers with `message`.
    pub(crate) fn says(message: &str) -> Self {
        let dockerfile = format!("# fake: body {message}\n{}", dockerfile());
        Self { message: message.to_owned(), settings: String::new(), dockerfile: Some(dockerfile) }
    }

    /// One that writes a few lines and exits.
    pub(crate) fn exits(code: u8) -> Self {
        Self::says("never seen")
            .with(&format!("EXIT_AT_START={code}"), &[&format!("exit {code}"), "error it cannot go on"])
    }

    /// One that runs but never listens.
    pub(crate) fn never_listens() -> Self {
        Self::says("never seen").with("NEVER_LISTEN=1", &["boot 600s"])
    }

    /// One that answers everything with this status.
    pub(crate) fn answers(status: u16) -> Self {
        Self::says("never seen").with(&format!("HEALTH_STATUS={status}"), &[&format!("status {status}")])
    }

    /// One that writes this at its start on the scripted engine.
    pub(crate) fn logs(self, line: &str) -> Self {
        self.with("", &[&format!("log {line}")])
    }

    /// One that takes this time to listen.
    pub(crate) fn boots(self, ms: u64) -> Self {
        self.with(&format!("START_DELAY_MS={ms}"), &[&format!("boot {ms}ms")])
    }

    /// One that can be asked to try how far it gets, and has these settings.
    pub(crate) fn tries(self, settings: &str) -> Self {
        self.with(&format!("TRIALS=1\n{settings}"), &[])
    }

    /// One whose build takes this time on the scripted engine.
    pub(crate) fn builds_in(self, ms: u64) -> Self {
        self.with("", &[&format!("slow-build {ms}ms")])
    }

    /// One whose answers take this time.
    pub(crate) fn answers_after(self, ms: u64) -> Self {
        self.with(&format!("ANSWER_AFTER_MS={ms}"), &[&format!("answer-after {ms}ms")])
    }

    /// One that ends with its first answer.
    pub(crate) fn exits_when_it_answers() -> Self {
        Self::says("never seen").with("EXIT_AFTER_ANSWER_MS=0", &["exit-after-ready", "error it has seen enough"])
    }

    /// One whose build does not end.
    pub(crate) fn builds_for_ever() -> Self {
        Self::says("never seen").builds_in(600_000).runs(&["/hello"])
    }

    /// One whose build writes so many MiB, and fails.
    pub(crate) fn floods_its_build(mb: u32) -> Self {
        let flood = format!("build-log {}", mb * 1024);
        let mut source =
            Self::says("never seen").with("", &[&flood, "fail-build COPY failed: no such file as nothing"]);
        source = source.runs(&["/hello", "chatter", &mb.to_string()]);
        source.dockerfile = source.dockerfile.map(|text| text + "COPY nothing /nothing\n");
        source
    }

    /// One whose build runs this command.
    pub(crate) fn runs(mut self, command: &[&str]) -> Self {
        self.dockerfile = self.dockerfile.map(|text| format!("{text}RUN {command:?}\n"));
        self
    }

    /// One that drops the requests that run when it is told to stop.
    pub(crate) fn drops(self) -> Self {
        self.with("DROP_AT_SIGTERM=1", &["drop-at-stop"])
    }

    /// One whose build fails.
    pub(crate) fn cannot_be_built() -> Self {
        let mut source = Self::says("never seen").with("", &["fail-build COPY failed: no such file as nothing"]);
        source.dockerfile = source.dockerfile.map(|text| text + "COPY nothing /nothing\n");
        source
    }

    /// One without a Dockerfile.
    pub(crate) fn without_dockerfile() -> Self {
        Self { dockerfile: None, ..Self::says("never seen") }
    }

    /// One whose Dockerfile has these lines instead of `EXPOSE 80`.
    pub(crate) fn exposing(lines: &str) -> Self {
        let mut source = Self::says("never seen");
        source.dockerfile = source.dockerfile.map(|text| text.replace("EXPOSE 80\n", lines));
        source
    }

    fn with(mut self, setting: &str, fake: &[&str]) -> Self {
        self.settings += &format!("{setting}\n");
        let fake: String = fake.iter().map(|line| format!("# fake: {line}\n")).collect();
        self.dockerfile = self.dockerfile.map(|text| fake + &text);
        self
    }

    /// Writes it into a folder.
    pub(crate) fn write(&self, folder: &Path) {
        boilerplate::write(folder, &self.message).expect("the source is written");
        fs::write(folder.join("settings"), &self.settings).expect("the settings are written");
        let file = folder.join("Dockerfile");
        match &self.dockerfile {
            Some(text) => fs::write(file, text).expect("the Dockerfile is written"),
            None => fs::remove_file(file).expect("the Dockerfile is removed"),
        }
    }
}

fn dockerfile() -> String {
    let folder = tempfile::tempdir().expect("a folder");
    boilerplate::write(folder.path(), "").expect("the source is written");
    fs::read_to_string(folder.path().join("Dockerfile")).expect("the boilerplate has a Dockerfile")
}
