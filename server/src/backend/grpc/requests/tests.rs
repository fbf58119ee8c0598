use std::{
    cell::RefCell,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use konnectivity_transport::packet::{PacketType, Payload};

use super::*;

type Ask<'a> = Pin<Box<dyn Future<Output = Answer> + 'a>>;

/// What became of the dials that were given up.
type Log = RefCell<Vec<(i64, GivenUp)>>;

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// A dial that has asked.
fn ask<'a>(requests: &'a Requests, log: &'a Log, dial_id: i64) -> (Ask<'a>, Arc<AtomicBool>) {
    let sent = Arc::<AtomicBool>::default();
    let flag = sent.clone();
    let gone = move |given_up| log.borrow_mut().push((dial_id, given_up));
    let mut ask: Ask<'a> = Box::pin(async move { requests.ask(dial_id, "a:1".to_owned(), &flag, gone).await });
    assert!(ask.as_mut().poll(&mut cx()).is_pending());
    (ask, sent)
}

fn sent(requests: &Requests) -> Option<i64> {
    let Poll::Ready(packet) = requests.poll_request(&mut cx()) else { return None };
    assert_eq!(packet.kind(), Some(PacketType::DialReq));
    let Some(Payload::DialRequest(request)) = packet.payload else { panic!("{packet:?}") };
    Some(request.random)
}

fn error_of(ask: &mut Ask<'_>) -> AskError {
    match ask.as_mut().poll(&mut cx()) {
        Poll::Ready(Err(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_are_sent_in_their_order_and_answered_once() {
    let (requests, log) = (Requests::default(), Log::default());
    let (mut first, was_sent) = ask(&requests, &log, 1);
    let (second, _) = ask(&requests, &log, 2);
    assert!(!was_sent.load(Ordering::Relaxed));
    assert!(requests.answered(1).is_none(), "nobody has asked the agent yet");
    assert_eq!((sent(&requests), sent(&requests), sent(&requests)), (Some(1), Some(2), None));
    assert!(was_sent.load(Ordering::Relaxed));
    let waiting = requests.answered(1).unwrap();
    waiting.send(Err(AskError::Refused("no".to_owned()))).unwrap();
    assert!(requests.answered(1).is_none(), "twice");
    assert_eq!(error_of(&mut first).to_string(), "no");
    drop((first, second));
    assert_eq!(*log.borrow(), [(1, GivenUp::Answered), (2, GivenUp::Sent)]);
    assert_eq!(requests.count(), 0);
}

#[test]
fn a_dial_that_was_given_up_is_not_sent() {
    let (requests, log) = (Requests::default(), Log::default());
    drop(ask(&requests, &log, 1));
    let (_second, _) = ask(&requests, &log, 2);
    assert_eq!((sent(&requests), sent(&requests)), (Some(2), None));
    assert_eq!(*log.borrow(), [(1, GivenUp::Unsent)]);
}

#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    let (requests, log) = (Requests::default(), Log::default());
    for dial_id in 0..10_000 {
        drop(ask(&requests, &log, dial_id));
    }
    let table = requests.lock();
    assert!(table.waiting.is_empty());
    assert!(table.unsent.len() <= STALE + 1, "{}", table.unsent.len());
}

#[test]
fn more_dials_than_an_agent_may_owe_wait_with_their_clients() {
    let (requests, log) = (Requests::default(), Log::default());
    let mut dials: Vec<_> = (0..=MAX_WAITING as i64).map(|dial_id| ask(&requests, &log, dial_id)).collect();
    assert_eq!(requests.count(), MAX_WAITING);
    drop(dials.remove(0));
    let (last, _) = dials.last_mut().unwrap();
    assert!(last.as_mut().poll(&mut cx()).is_pending());
    assert_eq!(requests.count(), MAX_WAITING, "it has the place of the one that left");
}

#[test]
fn a_lost_stream_answers_everybody_and_tells_who_had_been_asked() {
    let (requests, log) = (Requests::default(), Log::default());
    let (mut asked, _) = ask(&requests, &log, 1);
    assert_eq!(sent(&requests), Some(1));
    let (mut unasked, _) = ask(&requests, &log, 2);
    requests.lose(&"it broke".into());
    for (ask, may_ask_another) in [(&mut asked, false), (&mut unasked, true)] {
        let error = error_of(ask);
        assert_eq!((error.to_string().as_str(), error.may_ask_another()), ("it broke", may_ask_another));
    }
    let never = Arc::default();
    let mut later: Ask<'_> = Box::pin(requests.ask(3, "a:1".to_owned(), &never, |_| ()));
    assert!(error_of(&mut later).may_ask_another());
    assert_eq!(sent(&requests), None);
}
