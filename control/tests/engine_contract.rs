//! What every engine keeps, whoever implements it: each promise is tried on the fake and on real Docker.
//!
//! Real Docker must be there (at its default address); without it these tests fail. Each test is an installation of its
//! own, and leaves nothing on the engine, however it ends.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

#[path = "engine_contract/docker_only.rs"]
mod docker_only;
#[path = "engine_contract/promises.rs"]
mod promises;
#[path = "engine_contract/support.rs"]
mod support;

/// Makes two tests of each promise.
macro_rules! kept_by_all {
    ($($promise:ident)*) => {
        mod fake {
            $(#[tokio::test] async fn $promise() { crate::promises::$promise(crate::support::Bed::fake().await).await; })*
        }
        mod docker {
            $(#[tokio::test] async fn $promise() { crate::promises::$promise(crate::support::Bed::docker().await).await; })*
        }
    };
}

kept_by_all! {
    prepared_twice_it_is_the_same_network
    a_commit_without_a_dockerfile_is_its_developers_fault
    a_step_that_fails_is_its_developers_fault
    a_build_that_takes_too_long_is_stopped
    a_build_goes_on_when_nobody_reads_its_log
    an_image_says_what_it_exposes
    an_instance_answers_at_its_address
    started_twice_it_is_started_once
    stopped_it_keeps_its_address
    removed_nothing_of_it_is_left
    an_application_that_is_killed_is_stopped_and_told_of
    an_application_that_exits_says_its_code
    an_application_paused_by_hand_is_resumed
    a_sandbox_lost_behind_our_back_is_made_anew
    containers_lost_behind_our_back_are_made_anew
    without_its_image_it_does_not_start
    what_the_engine_cannot_start_leaves_nothing_that_changes_a_repeat
    logs_are_told_by_line_and_end_with_the_container
    installations_do_not_see_each_other
    remove_all_leaves_nothing
}
