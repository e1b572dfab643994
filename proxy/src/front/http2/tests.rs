use super::*;

/// Whether a body of which so much has come after each look is given up, and after how many looks; its answer is whole and taken.
async fn given_up(received: &[u64]) -> Option<usize> {
    let (wire, limits) = (Wire::default(), Limits::default());
    wire.ended.store(true, Ordering::Relaxed);
    let taking = Taking::new(&limits);
    let mut stopped = pin!(stopped(&wire, Some(&taking), &limits));
    for (look, count) in received.iter().enumerate() {
        wire.received.store(*count, Ordering::Relaxed);
        if timeout(limits.linger, stopped.as_mut()).await.is_ok() {
            assert!(wire.unwanted.load(Ordering::Relaxed));
            return Some(look);
        }
    }
    assert!(!wire.unwanted.load(Ordering::Relaxed));
    None
}

#[tokio::test(start_paused = true)]
async fn p38_a_body_is_given_up_when_it_stops_and_not_while_it_goes_on() {
    assert_eq!(given_up(&[1, 2, 3, 4, 5, 6, 7, 8]).await, None, "however slowly");
    for stop in 1..5 {
        let received: Vec<_> = (1..10).map(|count| count.min(stop)).collect();
        let look = given_up(&received).await.expect("it stops");
        assert!((stop as usize..=stop as usize + 1).contains(&look), "{stop}: {look}");
    }
}
