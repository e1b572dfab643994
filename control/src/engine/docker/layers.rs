//! What builds make on their way: labelled, so that what a killed program left behind is found again.
//!
//! The engine labels only the image at a build's end. So the Dockerfile it gets says so itself, after each `FROM`: every layer
//! that is made upon it inherits the label. Lines that the engine then tells of are counted back.

use std::collections::HashMap;

use bollard::models::ImageSummary;
use bollard::query_parameters::ListImagesOptions;

use super::image::sweep;
use super::{ANSWER_WITHIN, Docker, INSTALLATION, LAYER, PART};
use crate::engine::{BUILD, EngineError, Leftover};

/// Layers of one build that are gone through; a Dockerfile with more steps has its rest removed at the next look.
const CHAIN_MAX: usize = 1024;

/// What an image without a tag has for one.
const UNTAGGED: &str = "<none>:<none>";

/// A Dockerfile that says whose its layers are.
pub(super) struct Labelled {
    pub(super) text: Vec<u8>,
    pub(super) added: Added,
}

/// The lines that were added, counted from 1.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Added(Vec<usize>);

/// The instruction that labels what comes after it.
pub(super) fn instruction(installation: &str, build: &str) -> String {
    format!("LABEL {INSTALLATION}={installation} {PART}={LAYER} {BUILD}={build}")
}

/// Adds `instruction` after each `FROM`.
pub(super) fn labelled(dockerfile: &[u8], instruction: &str) -> Labelled {
    let escape = escape(dockerfile);
    let mut labelled = Labelled { text: Vec::with_capacity(dockerfile.len() + 256), added: Added::default() };
    let (mut number, mut open): (usize, Option<bool>) = (0, None);
    for line in dockerfile.split_inclusive(|byte| *byte == b'\n') {
        labelled.text.extend_from_slice(line);
        number += 1;
        let words = line.trim_ascii();
        // Within an instruction, too, these are not there for the engine.
        if words.is_empty() || words.starts_with(b"#") {
            continue;
        }
        let from = open.unwrap_or_else(|| is_from(words));
        if words.ends_with(&[escape]) {
            open = Some(from);
            continue;
        }
        open = None;
        if from {
            if !line.ends_with(b"\n") {
                labelled.text.push(b'\n');
            }
            labelled.text.extend_from_slice(instruction.as_bytes());
            labelled.text.push(b'\n');
            number += 1;
            labelled.added.0.push(number);
        }
    }
    labelled
}

fn is_from(words: &[u8]) -> bool {
    let words = words.strip_prefix(b"\xef\xbb\xbf").unwrap_or(words);
    words.split(u8::is_ascii_whitespace).next().is_some_and(|word| word.eq_ignore_ascii_case(b"FROM"))
}

/// What continues a line: a backslash, unless the first lines say otherwise.
fn escape(dockerfile: &[u8]) -> u8 {
    for line in dockerfile.split(|byte| *byte == b'\n') {
        let Some(comment) = line.trim_ascii().strip_prefix(b"#") else { break };
        let mut parts = comment.splitn(2, |byte| *byte == b'=');
        let (Some(key), Some(value)) = (parts.next(), parts.next()) else { break };
        if key.trim_ascii().eq_ignore_ascii_case(b"escape") {
            return if value.trim_ascii() == b"`" { b'`' } else { b'\\' };
        }
    }
    b'\\'
}

impl Added {
    /// The engine's words about its Dockerfile, as words about the developer's.
    pub(super) fn counted_back(&self, says: &str) -> String {
        const BEFORE: &str = "arse error line ";
        let Some(at) = says.find(BEFORE).map(|at| at + BEFORE.len()) else { return says.to_owned() };
        let digits = says[at..].bytes().take_while(u8::is_ascii_digit).count();
        let Ok(number) = says[at..at + digits].parse::<usize>() else { return says.to_owned() };
        let before = self.0.iter().filter(|added| **added < number).count();
        format!("{}{}{}", &says[..at], number - before, &says[at + digits..])
    }
}

impl Docker {
    /// Layers of ours that nothing is made from, and those they were made from, which are free after them. An image whose name
    /// went to another one (its commit was built twice) is like a layer.
    pub(super) async fn find_leftovers(&self) -> Result<Vec<Leftover>, EngineError> {
        let heads = self.layers("dangling", ListImagesOptions::default()).await?;
        if heads.is_empty() {
            return Ok(Vec::new());
        }
        let all = self.layers("", ListImagesOptions { all: true, ..Default::default() }).await?;
        let all: HashMap<&str, &ImageSummary> = all.iter().map(|image| (image.id.as_str(), image)).collect();
        let mut found: Vec<Leftover> = Vec::new();
        for head in &heads {
            let mut next = Some(head);
            while let Some(image) = next.filter(|image| is_untagged(image))
                && found.len() < CHAIN_MAX
            {
                let build = image.labels.get(BUILD).cloned().unwrap_or_default();
                if !found.iter().any(|found| found.image == image.id) {
                    found.push(Leftover { image: image.id.clone(), build });
                }
                next = all.get(image.parent_id.as_str()).copied();
            }
        }
        Ok(found)
    }

    async fn layers(&self, only: &str, options: ListImagesOptions) -> Result<Vec<ImageSummary>, EngineError> {
        let mut filters = self.filters(&[]).unwrap_or_default();
        if !only.is_empty() {
            filters.insert(only.to_owned(), vec!["true".to_owned()]);
        }
        let options = ListImagesOptions { filters: Some(filters), ..options };
        let list = self.ask(ANSWER_WITHIN, self.client().list_images(Some(options))).await;
        list.map_err(|fault| self.error("list what builds left behind", fault))
    }

    /// Removes one, unless it got a tag meanwhile, or something is made from it.
    pub(super) async fn remove_layer(&self, leftover: &Leftover) {
        sweep(&self.client(), std::slice::from_ref(&leftover.image)).await;
    }
}

fn is_untagged(image: &ImageSummary) -> bool {
    image.repo_tags.iter().all(|tag| tag == UNTAGGED)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_x(dockerfile: &str) -> (String, Vec<usize>) {
        let labelled = labelled(dockerfile.as_bytes(), "LABEL x");
        (String::from_utf8(labelled.text).expect("text"), labelled.added.0)
    }

    #[test]
    fn every_stage_is_labelled_and_nothing_else_is_touched() {
        let (text, added) = with_x("# a\nARG V=1\nFROM a:$V AS one\nRUN x \\\n  FROM\nfrom b\r\nCOPY --from=one a b\n");
        let expected =
            "# a\nARG V=1\nFROM a:$V AS one\nLABEL x\nRUN x \\\n  FROM\nfrom b\r\nLABEL x\nCOPY --from=one a b\n";
        assert_eq!((text.as_str(), added), (expected, vec![4, 8]));
        assert_eq!(with_x("FROM a").0, "FROM a\nLABEL x\n");
    }

    #[test]
    fn an_instruction_in_several_lines_ends_where_the_engine_ends_it() {
        assert_eq!(with_x("FROM \\\n# why\n\n  a\nRUN b\n").0, "FROM \\\n# why\n\n  a\nLABEL x\nRUN b\n");
        assert_eq!(with_x("# escape=`\nFROM `\n a\nRUN c:\\\nFROM b\n").1, [4, 7]);
        assert_eq!(with_x("FROM a \\").0, "FROM a \\", "it never ends");
    }

    #[test]
    fn lines_are_counted_back() {
        let added = labelled(b"FROM a\nFOO\n", "LABEL x").added;
        let says = "dockerfile parse error line 3: unknown instruction: FOO";
        assert_eq!(added.counted_back(says), "dockerfile parse error line 2: unknown instruction: FOO");
        assert_eq!(added.counted_back("Dockerfile parse error line 1: x"), "Dockerfile parse error line 1: x");
        assert_eq!(added.counted_back("something else"), "something else");
    }

    proptest! {
        #[test]
        fn without_what_was_added_it_is_what_it_was(lines in prop::collection::vec("(FROM a|from b \\\\|RUN x|# c||\\\\)\r?", 0..12)) {
            let text = lines.join("\n") + "\n";
            let (after, added) = with_x(&text);
            let left: Vec<&str> = after.split('\n').enumerate()
                .filter(|(index, _)| !added.contains(&(index + 1))).map(|(_, line)| line).collect();
            prop_assert_eq!(left.join("\n"), text);
        }

        #[test]
        fn nothing_panics(bytes: Vec<u8>, says: String) {
            labelled(&bytes, "LABEL x").added.counted_back(&says);
        }
    }
}
