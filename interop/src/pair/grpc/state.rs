//! What has come on a connection, by stream.

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use konnectivity_transport::packet::{Packet, PacketType, Payload};
use prost::Message;

use super::{
    frame::{Frame, MAX_PAYLOAD, flag, kind, setting},
    header::{Headers, Readings},
};

/// The window that both ends start with (RFC 9113, section 6.9.2).
pub const FIRST_WINDOW: u32 = 65_535;

/// What has come.
#[derive(Debug)]
pub struct State {
    /// The streams that were opened here.
    pub streams: HashMap<u32, Stream>,
    /// What has happened, in order.
    pub log: Vec<(Instant, Event)>,
    /// The error code of GOAWAY, and its words.
    pub goaway: Option<(u32, String)>,
    /// Why the connection has ended.
    pub ended: Option<String>,
    /// The server's settings.
    pub settings: HashMap<u16, u32>,
    /// What may be sent on all streams together.
    pub(super) window: i64,
    /// PINGs that have no answer yet.
    pub(super) pings: VecDeque<Vec<u8>>,
    /// What may be sent on a new stream.
    pub(super) first_window: i64,
    pub(super) acks_pings: bool,
}

/// One thing that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A packet has come, with so many bytes of data.
    Packet(u32, Option<PacketType>, usize),
    /// The server asks whether we are there.
    Ping,
    /// And was told so.
    PingAcked,
}

/// One stream.
#[derive(Debug, Default)]
pub struct Stream {
    /// Packets that nobody has taken yet.
    pub packets: VecDeque<Packet>,
    /// Header blocks: the first one, and trailers.
    pub headers: Vec<Headers>,
    /// The server has ended its half.
    pub ended: bool,
    /// The server has reset the stream.
    pub reset: Option<u32>,
    /// The window is not opened again.
    pub(super) held: bool,
    /// Bytes that have come since.
    pub(super) owed: u32,
    /// What may be sent.
    pub(super) window: i64,
    /// Bytes of a packet that is not there yet.
    pub(super) partial: Vec<u8>,
}

impl State {
    /// Of a new connection.
    pub(super) fn new(acks_pings: bool) -> Self {
        Self {
            streams: HashMap::new(),
            log: Vec::new(),
            goaway: None,
            ended: None,
            settings: HashMap::new(),
            window: FIRST_WINDOW.into(),
            pings: VecDeque::new(),
            first_window: FIRST_WINDOW.into(),
            acks_pings,
        }
    }

    /// Takes in a frame; what is to be answered to it.
    pub(super) fn take(
        &mut self,
        frame: &Frame,
        readings: &mut Readings,
        block: &mut Vec<u8>,
        answers: &mut Vec<Frame>,
    ) -> Result<(), String> {
        match frame.kind {
            kind::DATA => return self.data(frame, answers),
            kind::HEADERS | kind::CONTINUATION => {
                block.extend_from_slice(&frame.payload);
                let stream = self.stream(frame.stream)?;
                stream.ended |= frame.kind == kind::HEADERS && frame.flags & flag::END_STREAM != 0;
                if frame.flags & flag::END_HEADERS != 0 {
                    stream.headers.push(readings.read(&std::mem::take(block))?);
                }
            }
            kind::RST_STREAM => self.stream(frame.stream)?.reset = Some(frame.number(0)),
            kind::SETTINGS if frame.flags & flag::ACK == 0 => {
                self.settings(frame);
                answers.push(Frame::settings_ack());
            }
            kind::PING if frame.flags & flag::ACK == 0 => {
                self.note(Event::Ping);
                if self.acks_pings {
                    self.note(Event::PingAcked);
                    answers.push(Self::ping_ack(frame.payload.clone()));
                } else {
                    self.pings.push_back(frame.payload.clone());
                }
            }
            kind::GOAWAY => {
                let words = String::from_utf8_lossy(frame.payload.get(8..).unwrap_or_default()).into_owned();
                self.goaway = Some((frame.number(4), words));
            }
            kind::WINDOW_UPDATE if frame.stream == 0 => self.window += i64::from(frame.number(0)),
            kind::WINDOW_UPDATE => {
                // It may be about a stream that we have forgotten.
                if let Some(stream) = self.streams.get_mut(&frame.stream) {
                    stream.window += i64::from(frame.number(0));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The answer to a PING.
    pub(super) fn ping_ack(opaque: Vec<u8>) -> Frame {
        Frame::new(kind::PING, flag::ACK, 0, opaque)
    }

    fn settings(&mut self, frame: &Frame) {
        for setting in frame.payload.chunks_exact(6) {
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            let id = u16::from_be_bytes([setting[0], setting[1]]);
            if id == setting::INITIAL_WINDOW_SIZE {
                let change = i64::from(value) - self.first_window;
                self.first_window += change;
                self.streams.values_mut().for_each(|stream| stream.window += change);
            }
            self.settings.insert(id, value);
        }
    }

    fn data(&mut self, frame: &Frame, answers: &mut Vec<Frame>) -> Result<(), String> {
        let length = u32::try_from(frame.payload.len()).map_err(|error| error.to_string())?;
        let id = frame.stream;
        let stream = self.stream(id)?;
        if frame.flags & flag::PADDED != 0 || frame.payload.len() > MAX_PAYLOAD {
            return Err(format!("not a frame of a gRPC server: flags {}, {length} bytes", frame.flags));
        }
        stream.ended |= frame.flags & flag::END_STREAM != 0;
        stream.owed += length;
        stream.partial.extend_from_slice(&frame.payload);
        let mut events = Vec::new();
        while let Some(packet) = stream.packet()? {
            let bytes = data_of(&packet).map_or(0, <[u8]>::len);
            events.push(Event::Packet(id, packet.kind(), bytes));
            stream.packets.push_back(packet);
        }
        if length > 0 {
            answers.push(Frame::window_update(0, length));
            answers.extend(stream.credit().map(|credit| Frame::window_update(id, credit)));
        }
        events.into_iter().for_each(|event| self.note(event));
        Ok(())
    }

    fn stream(&mut self, id: u32) -> Result<&mut Stream, String> {
        self.streams.get_mut(&id).ok_or_else(|| format!("a frame of stream {id}, which was never opened"))
    }

    /// Adds to the log.
    pub(super) fn note(&mut self, event: Event) {
        self.log.push((Instant::now(), event));
    }
}

impl Stream {
    /// The next packet of the bytes that have come.
    fn packet(&mut self) -> Result<Option<Packet>, String> {
        let Some((&[compressed, a, b, c, d], rest)) = self.partial.split_first_chunk() else { return Ok(None) };
        if compressed != 0 {
            return Err(format!("a message with the flag {compressed}"));
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let Some(message) = rest.get(..length) else { return Ok(None) };
        let packet = Packet::decode(message).map_err(|error| error.to_string())?;
        self.partial.drain(..5 + length);
        Ok(Some(packet))
    }

    /// What the window is to be opened by.
    pub(super) fn credit(&mut self) -> Option<u32> {
        let closed = self.held || self.ended || self.owed == 0;
        (!closed).then(|| std::mem::take(&mut self.owed))
    }

    /// Whether nothing comes any more.
    pub fn is_over(&self) -> bool {
        self.ended || self.reset.is_some()
    }

    /// The value of a header of the last block.
    pub fn header(&self, name: &str) -> Option<&str> {
        let find = |headers: &'_ Headers| headers.iter().position(|(known, _)| known == name);
        let headers = self.headers.iter().rev().find(|headers| find(headers).is_some())?;
        find(headers).map(|at| headers[at].1.as_str())
    }
}

/// The bytes of a DATA packet.
pub fn data_of(packet: &Packet) -> Option<&[u8]> {
    match &packet.payload {
        Some(Payload::Data(data)) => Some(&data.data),
        _ => None,
    }
}
