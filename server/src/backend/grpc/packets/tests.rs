use std::{
    cell::Cell,
    pin::Pin,
    sync::atomic::AtomicBool,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Buf;
use konnectivity_transport::{
    budget::MemoryBudget,
    mux::{Mux, MuxDial, MuxSettings, Role, SlowDial},
    packet::{Data, message::Decoder},
    wire::message::DialRequest,
};

use super::*;

type Ask = Pin<Box<dyn Future<Output = Result<MuxDial, AskError>>>>;

struct Scene {
    agent: GrpcAgent,
    metrics: Metrics,
    drains: Cell<usize>,
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

impl Scene {
    fn new() -> Self {
        let settings = MuxSettings {
            role: Role::Server,
            dial_buffer: 1 << 20,
            slow_dial: SlowDial::Close,
            close_pause: Duration::ZERO,
        };
        let mux = Mux::new(settings, MemoryBudget::new(1 << 30));
        let agent = GrpcAgent::new(mux, "127.0.0.1:1".parse().unwrap());
        Self { agent, metrics: Metrics::new(), drains: Cell::new(0) }
    }

    fn take(&self, packet: Packet) {
        self.take_event(Event::Packet(packet));
    }

    fn take_event(&self, event: Event) {
        take(&self.agent, event, &self.metrics, || self.drains.set(self.drains.get() + 1));
    }

    /// A dial whose request is sent.
    fn asked(&self, dial_id: u64) -> Ask {
        let agent = self.agent.clone();
        let request = DialRequest { dial_id, network: "tcp".into(), address: "a:1".into(), timeout_ms: 0 };
        let mut ask: Ask = Box::pin(async move { agent.ask(request, &AtomicBool::default().into()).await });
        assert!(ask.as_mut().poll(&mut cx()).is_pending());
        assert!(self.agent.requests.poll_request(&mut cx()).is_ready());
        ask
    }

    /// A dial that is connected.
    fn connected(&self, dial_id: u64, connect_id: i64) -> MuxDial {
        let mut ask = self.asked(dial_id);
        self.take(Packet::connected(dial_id.cast_signed(), connect_id));
        answer_of(&mut ask).unwrap()
    }

    /// What is to be sent to the agent.
    fn sent(&self) -> Vec<Packet> {
        let mut decoder = Decoder::default();
        while let Poll::Ready(Some((_, mut packet))) = self.agent.mux.poll_send(&mut cx(), 1 << 20) {
            let bytes = packet.copy_to_bytes(packet.remaining());
            decoder.push(bytes);
        }
        std::iter::from_fn(|| decoder.next().unwrap())
            .map(|event| match event {
                Event::Packet(packet) => packet,
                Event::Data { .. } => panic!("{event:?}"),
            })
            .collect()
    }

    fn unrecognized(&self) -> bool {
        let page = self.metrics.render([], Default::default(), &Default::default()).unwrap();
        page.contains("dial_failure_count{reason=\"unrecognized_response\"} 1")
    }
}

fn answer_of(ask: &mut Ask) -> Result<MuxDial, AskError> {
    match ask.as_mut().poll(&mut cx()) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("no answer"),
    }
}

fn refusal(ask: &mut Ask) -> String {
    match answer_of(ask) {
        Err(AskError::Refused(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn data(connect_id: i64) -> Event {
    Event::Data { connect_id, bytes: Bytes::from_static(b"bytes"), first: true }
}

#[test]
fn an_answer_goes_to_its_dial() {
    let scene = Scene::new();
    let (mut first, mut second) = (scene.asked(1), scene.asked(2));
    scene.take(Packet::connected(2, 9));
    assert!(first.as_mut().poll(&mut cx()).is_pending());
    assert_eq!(answer_of(&mut second).unwrap().connect_id(), 9);
    scene.take(Packet::dial_failed(1, "dial tcp: refused"));
    assert_eq!(refusal(&mut first), "dial tcp: refused");
    assert!(!scene.unrecognized());
}

#[test]
fn an_answer_that_nobody_waits_for_is_closed_and_counted() {
    let scene = Scene::new();
    scene.take(Packet::connected(7, 3));
    assert_eq!(scene.sent(), [Packet::close_request(3)]);
    assert!(scene.unrecognized());
    // Without a connection there is nothing to close.
    scene.take(Packet::dial_failed(7, "late"));
    assert_eq!(scene.sent(), []);
}

#[test]
fn a_client_that_leaves_is_told_to_the_agent_and_its_late_connection_closed() {
    let scene = Scene::new();
    drop(scene.asked(1));
    assert_eq!(scene.sent(), [Packet::close_dial(1)]);
    scene.take(Packet::connected(1, 5));
    assert_eq!(scene.sent(), [Packet::close_request(5)]);
    assert!(scene.unrecognized());
}

#[test]
fn an_answer_that_comes_as_the_client_leaves_is_closed() {
    let scene = Scene::new();
    let ask = scene.asked(1);
    scene.take(Packet::connected(1, 5));
    drop(ask);
    assert_eq!(scene.sent(), [Packet::close_request(5)]);
    assert_eq!(scene.agent.open_dials(), 0);
}

#[test]
fn a_second_answer_does_not_harm_the_dial() {
    let scene = Scene::new();
    let dial = scene.connected(1, 4);
    scene.take(Packet::connected(1, 4));
    assert_eq!(scene.sent(), [], "the dial's own connection is not closed");
    assert!(scene.unrecognized());
    scene.take(Packet::connected(1, 5));
    assert_eq!(scene.sent(), [Packet::close_request(5)]);
    assert_eq!(dial.connect_id(), 4);
    assert_eq!(scene.agent.open_dials(), 1);
}

#[test]
fn a_number_of_another_dial_is_no_connection() {
    let scene = Scene::new();
    let _dial = scene.connected(1, 4);
    let mut ask = scene.asked(2);
    scene.take(Packet::connected(2, 4));
    assert_eq!(refusal(&mut ask), TAKEN);
    assert_eq!(scene.sent(), []);
}

#[test]
fn no_number_is_no_connection() {
    let scene = Scene::new();
    let mut ask = scene.asked(1);
    scene.take(Packet::connected(1, 0));
    assert_eq!(refusal(&mut ask), NO_CONNECTION);
}

#[test]
fn bytes_for_nobody_are_answered_once_and_those_without_a_number_not() {
    let scene = Scene::new();
    scene.take_event(data(8));
    scene.take_event(Event::Data { connect_id: 8, bytes: Bytes::from_static(b"rest"), first: false });
    assert_eq!(scene.sent(), [Packet::close_request(8)]);
    scene.take_event(data(0));
    scene.take(Packet::close_response(8, ""));
    assert_eq!(scene.sent(), []);
}

#[test]
fn an_agent_may_give_a_dial_up_and_drain() {
    let scene = Scene::new();
    let mut ask = scene.asked(1);
    scene.take(Packet::close_dial(2));
    assert!(ask.as_mut().poll(&mut cx()).is_pending());
    scene.take(Packet::close_dial(1));
    assert!(matches!(answer_of(&mut ask), Err(AskError::GivenUp)));
    scene.take(Packet { r#type: PacketType::Drain.into(), payload: None });
    assert_eq!(scene.drains.get(), 1);
}

#[test]
fn what_makes_no_sense_is_ignored() {
    let scene = Scene::new();
    let dial = scene.connected(1, 4);
    for packet in [
        Packet { r#type: 99, payload: None },
        Packet::dial_request("a:1", 1),
        Packet::close_request(4),
        // The payload of another type counts as none.
        Packet { r#type: PacketType::CloseRsp.into(), payload: Some(Payload::Data(Data::default())) },
        Packet { r#type: PacketType::DialCls.into(), payload: None },
    ] {
        scene.take(packet);
    }
    assert_eq!(scene.sent(), []);
    assert_eq!((dial.connect_id(), scene.agent.open_dials()), (4, 1));
}
