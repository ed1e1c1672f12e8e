//! Back-offs beside that of crashes: of pulls, and of keeping a pod.

use super::*;
use crate::plan::effect::ImageFailure;

/// What is to be kept has a back-off of its own, and nobody waits for what is being kept.
#[test]
fn a_pod_that_cannot_be_kept_starts_what_is_due() {
    let mut s = scene(ONE, &[("a", 0, Exited, 1)]);
    let Some(Effect::Start(mut start)) = s.decide(12).effects.pop() else { panic!() };
    s.memory.note(Outcome::Starting(start.containers.remove(0)), at(12));
    s.runtime = scene(ONE, &[("a", 0, Exited, 1), ("a", 1, Exited, 1)]).runtime;
    let d = s.decide(112);
    s.memory.enter(&d);
    assert_eq!(show(&d), "Syncing keep @122 (BackOff)", "what hangs is given up when the restart is due");
    let mut pauses = Vec::new();
    for _ in 0..7 {
        s.memory.note(Outcome::NotKept, at(112));
        let d = s.decide(112);
        assert!(d.effects.is_empty());
        pauses.push(d.wake_at.unwrap().duration_since(at(112)).as_millis());
        if pauses.len() == 5 {
            assert_eq!(s.shows(120), "Syncing keep @122", "tried again");
        }
    }
    assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
    s.memory.note(Outcome::NotKept, at(115));
    assert_eq!(s.shows(115), "Syncing @122");
    assert_eq!(s.shows(122), "Syncing start:s0[a#2/2]", "however long its own pause is");
    s.memory.note(Outcome::Rested, at(122));
    s.memory.wake();
    s.memory.note(Outcome::NotKept, at(122));
    s.runtime = scene(ONE, &[("a", 2, Running, 0)]).runtime;
    assert_eq!(s.decide(122).wake_at.unwrap().duration_since(at(122)).as_millis(), 500, "counted anew");
}

/// The worker's memory alone knows when an image is pulled again.
#[test]
fn pulls_that_failed_wait_and_images_are_looked_for_meanwhile() {
    let mut s = scene("  containers: [{name: a}, {name: b}, {name: c, image: other}]", &[]);
    let waits = |s: &Scene, seconds| {
        let Some(Effect::Start(start)) = s.decide(seconds).effects.pop() else { panic!() };
        start.containers.into_iter().map(|c| (c.name, c.pull_back_off)).collect::<Vec<_>>()
    };
    let all = |a: Option<&str>, b: Option<&str>| {
        let text = |t: Option<&str>| t.map(str::to_owned);
        vec![("a".to_owned(), text(a)), ("b".to_owned(), text(b)), ("c".to_owned(), None)]
    };
    assert_eq!(waits(&s, 0), all(None, None));
    let pull = |error: &str| StartFailure::Image(ImageFailure::Pull(error.to_owned()));
    assert_eq!(start_fails(&mut s, "a", pull("no such image"), 0), 1000);
    // Both have the same image.
    assert_eq!(waits(&s, 1), all(Some("no such image"), Some("no such image")));
    assert_eq!(start_fails(&mut s, "b", StartFailure::Image(ImageFailure::BackOff), 1), 9000);
    assert_eq!(waits(&s, 10), all(None, None));
    start_fails(&mut s, "a", pull("still none"), 10);
    assert_eq!(
        start_fails(&mut s, "a", StartFailure::Image(ImageFailure::BackOff), 11),
        10_000,
        "it may be there by then"
    );
    for (failure, pause) in [(ImageFailure::Inspect, 1000), (ImageFailure::Never, 10_000)] {
        assert_eq!(start_fails(&mut s, "c", StartFailure::Image(failure), 30), pause);
        s.memory.tries.clear();
    }
}
