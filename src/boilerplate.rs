//! The demo application, carried inside of the program: a folder of it is ready to be committed and pushed.
//!
//! Its image is built `FROM scratch`, so that a first try needs no registry. The tests use it as their origin, too.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The application, linked statically: it needs nothing else in its image.
pub const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hello"));

/// The file whose text the application shows, and that people change first.
pub const MESSAGE_FILE: &str = "message.txt";

const MODE_PROGRAM: u32 = 0o755;
const MODE_TEXT: u32 = 0o644;

macro_rules! texts {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../boilerplates/hello/", $path)))),*]
    };
}

/// What goes into the folder as it is: what people read and change, and the source of the program.
const TEXTS: &[(&str, &str)] = texts![
    "Dockerfile",
    "README.md",
    "src/http.rs",
    "src/main.rs",
    "src/page.html",
    "src/page.rs",
    "src/routes.rs",
    "src/settings.rs",
    "src/socket.rs",
    "src/trials.rs",
];

/// The message the application has when nobody wrote another.
pub const MESSAGE: &str = include_str!("../boilerplates/hello/message.txt");

/// Writes the application into `dir`, which is made if need be, ready for `git init`, `add` and `commit`. What is there
/// under the same names is replaced, and the rest left alone.
pub fn write(dir: &Path, message: &str) -> io::Result<()> {
    fs::create_dir_all(dir.join("src"))?;
    for (path, text) in TEXTS {
        put(&dir.join(path), text.as_bytes(), MODE_TEXT)?;
    }
    put(&dir.join(MESSAGE_FILE), message.as_bytes(), MODE_TEXT)?;
    put(&dir.join("hello"), PROGRAM, MODE_PROGRAM)
}

fn put(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    fs::write(path, bytes)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_has_every_source_file_and_a_program_that_can_run() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "hi").unwrap();
        write(folder.path(), "ho").unwrap();
        assert_eq!(fs::read_to_string(folder.path().join(MESSAGE_FILE)).unwrap(), "ho");
        let mode = fs::metadata(folder.path().join("hello")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE_PROGRAM);
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("boilerplates/hello/src");
        for entry in fs::read_dir(sources).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(folder.path().join("src").join(&name).exists(), "{} is missing in TEXTS", name.display());
        }
    }
}
