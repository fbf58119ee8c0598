//! A connection of frames that does nothing by itself.

use std::io;

use konnectivity_transport::packet::{Packet, Payload};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::{
    door::Door,
    frame::{Frame, HEAD, PREFACE, code, kind},
    header::{Blocks, Form, Table, request},
    message,
};
use crate::{ends::within, load::path::Dial};

/// Both directions of a connection.
#[derive(Debug)]
pub struct Wire {
    /// What the client sends.
    pub out: Out,
    /// What the server sends.
    pub back: Back,
}

/// What the client sends.
#[derive(Debug)]
pub struct Out(pub WriteHalf<Dial>);

/// What the server sends.
#[derive(Debug)]
pub struct Back(ReadHalf<Dial>);

/// How a server has ended a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Farewell {
    /// The error code of the last GOAWAY, if there was one.
    pub goaway: Option<u32>,
    /// What GOAWAY said besides.
    pub words: String,
    /// The streams that were reset, with their codes.
    pub resets: Vec<(u32, u32)>,
    /// Every frame until the end.
    pub frames: Vec<Frame>,
}

impl Wire {
    /// Connects and says nothing yet.
    ///
    /// # Panics
    /// When the frontend does not accept.
    pub async fn open(door: &Door) -> Self {
        let dial = within("connecting", door.open()).await.expect("the frontend accepts");
        Self::over(dial)
    }

    /// Over an open connection.
    pub fn over(dial: Dial) -> Self {
        let (read, write) = tokio::io::split(dial);
        Self { out: Out(write), back: Back(read) }
    }

    /// Connects and sends the preface and empty settings, as a Go client does.
    ///
    /// # Panics
    /// When the frontend does not take it.
    pub async fn greeted(door: &Door) -> Self {
        Self::try_greeted(door).await.expect("the frontend takes the preface")
    }

    /// The same for an attack, which may be refused at once.
    ///
    /// # Errors
    /// When the frontend does not take it.
    pub async fn try_greeted(door: &Door) -> io::Result<Self> {
        let mut wire = Self::over(within("connecting", door.open()).await?);
        let greeting = [&PREFACE[..], &Frame::settings(&[]).bytes()].concat();
        wire.out.bytes(&greeting).await?;
        Ok(wire)
    }

    /// Sends frames, which the server may refuse by closing.
    pub async fn say(&mut self, frames: impl IntoIterator<Item = Frame>) {
        let bytes = frames.into_iter().flat_map(|frame| frame.bytes()).collect::<Vec<_>>();
        // It shows in the farewell.
        let _ = self.out.bytes(&bytes).await;
    }

    /// Opens a stream and dials on it; its conn id.
    ///
    /// # Panics
    /// When the answer is another one than DIAL_RSP without an error, or none.
    pub async fn dial(&mut self, stream: u32, authority: &str, target: impl ToString) -> i64 {
        let block = Blocks::default().block(&request(authority), Form { huffman: true, table: Table::Literal });
        let packet = Packet::dial_request(target.to_string(), i64::from(stream));
        self.say([Frame::headers(stream, block), Frame::data(stream, message(&packet))]).await;
        let mut bytes = Vec::new();
        loop {
            let frame = within("the answer", self.back.next()).await.expect("the connection is open");
            if frame.stream != stream || frame.kind != kind::DATA {
                continue;
            }
            bytes.extend(frame.payload);
            let Some(packet) = bytes.get(5..).filter(|packet| !packet.is_empty()) else { continue };
            match Packet::decode(packet).expect("one whole packet").payload {
                Some(Payload::DialResponse(response)) if response.error.is_empty() => return response.connect_id,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Reads to the end of the connection, however it comes.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn farewell(mut self) -> Farewell {
        within("the end of the connection", self.back.rest()).await
    }
}

impl Out {
    /// Sends bytes.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await?;
        self.0.flush().await
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn frame(&mut self, frame: &Frame) -> io::Result<()> {
        self.bytes(&frame.bytes()).await
    }
}

impl Back {
    /// The next frame.
    ///
    /// # Errors
    /// When the connection has ended, with `UnexpectedEof` if it has ended as it should.
    ///
    /// # Cancel safety
    /// Not cancel safe: what was read of a frame is lost.
    pub async fn next(&mut self) -> io::Result<Frame> {
        let mut head = [0; HEAD];
        self.0.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).await?;
        Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1), payload })
    }

    /// Everything to the end of the connection.
    pub async fn rest(&mut self) -> Farewell {
        let mut farewell = Farewell { goaway: None, words: String::new(), resets: Vec::new(), frames: Vec::new() };
        while let Ok(frame) = self.next().await {
            match frame.kind {
                // The gentle one that may come before says nothing yet.
                kind::GOAWAY if farewell.goaway.is_none_or(|last| last == code::NO_ERROR) => {
                    farewell.goaway = Some(frame.number(4));
                    farewell.words = String::from_utf8_lossy(frame.payload.get(8..).unwrap_or_default()).into_owned();
                }
                kind::RST_STREAM => farewell.resets.push((frame.stream, frame.number(0))),
                _ => {}
            }
            farewell.frames.push(frame);
        }
        farewell
    }

    /// The bytes to the end of the connection, for what is not HTTP/2, and how they ended.
    pub async fn raw(&mut self) -> (Vec<u8>, io::Result<()>) {
        let mut bytes = Vec::new();
        let end = self.0.read_to_end(&mut bytes).await;
        (bytes, end.map(drop))
    }
}
