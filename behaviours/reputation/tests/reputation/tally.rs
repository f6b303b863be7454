use std::time::Duration;

use reputation::tally::{Output, Tally};
use reputation::{Refusal, Refused};

use crate::common::start;

fn refused(refusal: Refusal) -> Refused {
    Refused { refusal, limit: 1, prefix: None }
}

#[test]
fn a_flood_of_refusals_is_a_number() {
    let (mut tally, began) = (Tally::new(Duration::from_secs(10)), start());
    let told = |tally: &mut Tally| std::iter::from_fn(|| tally.poll_output()).collect::<Vec<_>>();
    let some = |refusal, count| Output { refused: refused(refusal), count };

    tally.handle_input(refused(Refusal::Places), began);
    assert_eq!((told(&mut tally), tally.poll_timeout()), (vec![some(Refusal::Places, 1)], None));
    for _ in 0..1_000 {
        tally.handle_input(refused(Refusal::Places), began + Duration::from_secs(3));
    }
    // Another kind is told at once.
    tally.handle_input(refused(Refusal::Cut), began + Duration::from_secs(4));
    assert_eq!(told(&mut tally), [some(Refusal::Cut, 1)]);
    let due = tally.poll_timeout().unwrap();
    assert_eq!(due, began + Duration::from_secs(10));
    tally.handle_timeout(due);
    assert_eq!((told(&mut tally), tally.poll_timeout()), (vec![some(Refusal::Places, 1_000)], None));
    // The time begins anew when one was told.
    tally.handle_input(refused(Refusal::Places), due + Duration::from_secs(1));
    assert_eq!((told(&mut tally), tally.poll_timeout()), (vec![], Some(due + Duration::from_secs(10))));
    tally.handle_timeout(due + Duration::from_secs(10));
    assert_eq!(told(&mut tally), [some(Refusal::Places, 1)]);
    // After a pause the next one is told at once again.
    tally.handle_input(refused(Refusal::Places), due + Duration::from_secs(60));
    assert_eq!((told(&mut tally), tally.poll_timeout()), (vec![some(Refusal::Places, 1)], None));
}
