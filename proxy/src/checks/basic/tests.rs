use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use http::HeaderValue;

use super::*;

fn policy() -> policy::Basic {
    let params = Params::new(8, 1, 1, None).expect("parameters");
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = argon.hash_password_with_salt(b"right", b"saltsalt").expect("a hash").to_string();
    serde_json::from_value(serde_json::json!({"users": [{"name": "ann", "hash": hash}]})).expect("a policy")
}

fn fields(name: &str, password: &str) -> HeaderMap {
    let value = format!("Basic {}", STANDARD.encode(format!("{name}:{password}")));
    HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::try_from(value).expect("a value"))])
}

fn client(number: u8) -> Option<IpAddr> {
    Some([192, 0, 2, number].into())
}

#[tokio::test]
async fn verdicts_are_kept_and_no_password_is() {
    let (verifier, basic) = (Verifier::new(1).expect("randomness"), Arc::new(Basic::new(policy())));
    for _ in 0..3 {
        assert_eq!(basic.check(&verifier, None, &fields("ann", "right")).await, Ok(()));
        assert_eq!(basic.check(&verifier, None, &fields("ann", "secret guess")).await, Err(Reason::Unauthorized));
    }
    {
        let known = basic.verdicts();
        assert_eq!((known.right.len(), known.wrong.len(), known.pending.len()), (1, 1, 0));
    }
    let verdicts = format!("{:?}", basic.verdicts());
    assert!(!verdicts.contains("right\"") && !verdicts.contains("secret guess"));
    assert!(!format!("{basic:?}").contains("argon2id"), "nor is its hash shown");
    assert_eq!((verifier.waiting.load(Ordering::SeqCst), verifier.clients.len()), (0, 0));
}

#[tokio::test]
async fn a_hash_by_htpasswd_counts_as_any_other() {
    const HASH: &str = "$2y$04$B8enEERhXcqmf5HFVlroEOKEtljYhviXvSk5XletPFQKFbO4z6gqu";
    let policy = serde_json::json!({"users": [{"name": "ann", "hash": HASH}]});
    let basic = Arc::new(Basic::new(serde_json::from_value(policy).expect("a policy")));
    let verifier = Verifier::new(1).expect("randomness");
    for _ in 0..2 {
        assert_eq!(basic.check(&verifier, None, &fields("ann", "open sesame")).await, Ok(()));
        assert_eq!(basic.check(&verifier, None, &fields("ann", "wrong")).await, Err(Reason::Unauthorized));
        assert_eq!(basic.check(&verifier, None, &fields("bob", "open sesame")).await, Err(Reason::Unauthorized));
    }
    let verdicts = basic.verdicts();
    assert_eq!((verdicts.right.len(), verdicts.wrong.len()), (1, 2));
}

fn users(numbers: std::ops::Range<u32>) -> Vec<User> {
    let user = |number| json(format!(r#"{{"name": "user{number}", "hash": "$2y$04$salt and hash {number}"}}"#));
    numbers.map(user).collect()
}

fn json(text: String) -> User {
    serde_json::from_str(&text).expect("a user")
}

#[test]
fn a_password_of_a_user_is_verified_against_the_users_own_hash() {
    let users = users(0..10);
    for user in &users {
        assert_eq!(verified_against(&users, &user.name), (user.hash.0.as_str(), Whose::Theirs));
    }
    assert_eq!(verified_against(&[], "user0"), ("", Whose::StandIns));
}

/// Else the time tells who there is where the hashes differ in what they cost.
#[test]
fn names_of_nobody_are_verified_against_any_users_hash_and_each_always_against_the_same() {
    let ten = users(0..10);
    let of = |users: &[User], number| {
        let (hash, whose) = verified_against(users, &format!("nobody{number}"));
        assert_eq!(whose, Whose::StandIns);
        hash.to_owned()
    };
    let mut counts = HashMap::new();
    let (mut turned, eleven, mut changed) = (users(0..10), users(0..11), 0);
    turned.reverse();
    for number in 0..1000 {
        let hash = of(&ten, number);
        assert_eq!(of(&turned, number), hash, "whichever order the users are in");
        let with_another = of(&eleven, number);
        assert!(with_another == hash || with_another == eleven[10].hash.0, "a new user takes names for itself alone");
        changed += u32::from(with_another != hash);
        *counts.entry(hash).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 10);
    assert!(counts.values().all(|count| (50..200).contains(count)), "{counts:?}");
    assert!((30..200).contains(&changed), "{changed}");
    let salted = |user: &User| json(serde_json::to_string(user).expect("text").replace("salt", "other"));
    let others: Vec<_> = ten.iter().map(salted).collect();
    let is_the_same = |number| of(&others, number).replace("other", "salt") == of(&ten, number);
    assert!(!(0..100).all(is_the_same), "whose it is depends on the hashes, which nobody knows");
}

#[tokio::test]
async fn name_and_password_are_not_one_text() {
    let verifier = Verifier::new(1).expect("randomness");
    let of = |name: &str, password: &str| {
        verifier.digest(&Credentials { name: name.to_owned(), password: password.as_bytes().to_vec() })
    };
    assert_ne!(of("ann", "right"), of("annr", "ight"));
    assert_ne!(
        of("ann", "right"),
        Verifier::new(1)
            .expect("randomness")
            .digest(&Credentials { name: "ann".to_owned(), password: b"right".to_vec() })
    );
}

#[tokio::test]
async fn wrong_passwords_are_remembered_up_to_a_number() {
    let basic = Basic::new(policy());
    for number in 0..u64::try_from(WRONG_MAX).expect("small") + 100 {
        let mut digest = Digest::default();
        digest[..8].copy_from_slice(&number.to_be_bytes());
        drop(Pending { basic: &basic, digest, verdict: Some(false) });
    }
    assert_eq!(basic.verdicts().wrong.len(), WRONG_MAX);
}

#[tokio::test]
async fn an_environment_has_its_part_of_the_queue_and_a_client_its_own() {
    let verifier = Verifier::new(1).expect("randomness");
    let (one, other) = (Basic::new(policy()), Basic::new(policy()));
    let mut places = Vec::new();
    for number in 0..VERIFIED_OF_ENVIRONMENT {
        let client = client(u8::try_from(number / VERIFIED_OF_CLIENT).expect("small"));
        places.push(Place::take(&verifier, &one, Client::of(client)).expect("there is room"));
    }
    let refused = |basic, number| Place::take(&verifier, basic, Client::of(client(number))).err();
    assert_eq!(refused(&one, 100), Some(Reason::AccessBusy));
    assert_eq!(refused(&other, 0), Some(Reason::TooManyRequests { retry_after: GUESS_AGAIN }));
    assert_eq!(refused(&other, 100), None, "another environment's is free");
    drop(places);
    assert_eq!((verifier.waiting.load(Ordering::SeqCst), verifier.clients.len()), (0, 0));
}

#[tokio::test]
async fn whoever_leaves_while_it_waits_leaves_nothing_behind() {
    let (verifier, basic) = (Verifier::new(1).expect("randomness"), Arc::new(Basic::new(policy())));
    let busy = Arc::clone(&verifier.at_a_time).acquire_owned().await.expect("free");
    let (first, second) = (fields("ann", "right"), fields("ann", "right"));
    let mut leaver = Box::pin(basic.check(&verifier, client(1), &first));
    let mut stayer = Box::pin(basic.check(&verifier, client(2), &second));
    tokio::select! {
        biased;
        _ = &mut leaver => panic!("nobody verifies"),
        _ = &mut stayer => panic!("nobody verifies"),
        () = tokio::task::yield_now() => {}
    }
    drop(leaver);
    drop(busy);
    assert_eq!(stayer.await, Ok(()), "who waits for the same verdict takes it over");
    assert!(basic.verdicts().pending.is_empty());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_its_turn_for_ever() {
    let (verifier, basic) = (Verifier::new(1).expect("randomness"), Arc::new(Basic::new(policy())));
    let _busy = Arc::clone(&verifier.at_a_time).acquire_owned().await.expect("free");
    assert_eq!(basic.check(&verifier, None, &fields("ann", "right")).await, Err(Reason::AccessBusy));
    assert!(basic.verdicts().pending.is_empty());
}
