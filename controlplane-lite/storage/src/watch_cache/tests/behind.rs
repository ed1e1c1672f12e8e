//! Tests of `storage::watch_cache`: watches that are behind for long.

use std::time::Instant;

use super::*;

/// Watches that are read ever so slowly, each from another time on, would together keep all that was ever written.
#[tokio::test]
async fn a_watch_keeps_little_that_the_history_has_forgotten() {
    let world = world().await;
    let watch = || world.pods.watch(WatchRequest::new(Filter::all(), WatchStart::Now)).unwrap();
    let (mut slow, mut current, idle) = (watch(), watch(), watch());
    for n in 0..200 {
        world.put("ns", "a", &n.to_string(), "").await;
        assert_eq!(take(&mut current, 1).await.len(), 1);
    }
    drop(idle);
    let later = Instant::now() + Duration::from_secs(3600);
    take(&mut slow, 1).await;
    world.pods.trim(later);
    assert_eq!(world.pods.read().watchers.len(), 2, "it may be reading");
    take(&mut slow, 1).await;
    world.pods.trim(later);
    assert_eq!(world.pods.read().watchers.len(), 1);
    // It has what it had, and then has to list again.
    let mut left = 0;
    while let Some(Ok(_)) = slow.next().await {
        left += 1;
    }
    assert_eq!(left, 198);
    world.put("ns", "a", "last", "").await;
    world.pods.trim(later);
    world.pods.trim(later);
    assert_eq!(take(&mut current, 1).await.len(), 1, "what is remembered may be read");
}
