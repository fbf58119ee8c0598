//! A client that writes what it is told, frame by frame.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{super::walk::PREFACE, *};

/// The clock of these tests stands still as long as anybody has work: this passes at once when everybody waits.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Client {
    socket: DuplexStream,
    encoder: Encoder,
}

/// The fields of a dial's request, as grpc-go sends them.
pub fn request(authority: &str) -> Vec<OwnField> {
    vec![
        field(":method", "POST"),
        field(":scheme", "http"),
        field(":path", "/ProxyService/Proxy"),
        field(":authority", authority),
        field("content-type", "application/grpc"),
        field("user-agent", "grpc-go/1.80.0"),
        field("te", "trailers"),
    ]
}

impl Client {
    pub async fn new(socket: DuplexStream) -> Self {
        let mut client = Self { socket, encoder: Encoder::default() };
        client.write(&[&PREFACE[..], &frame(SETTINGS, 0, 0, b"")].concat()).await;
        client
    }

    /// Writes until the server closes.
    pub async fn write(&mut self, octets: &[u8]) {
        let write = tokio::time::timeout(PATIENCE, self.socket.write_all(octets));
        let _ = write.await.expect("the server reads or closes");
    }

    /// Opens a stream, in frames of at most 16,000 octets.
    pub async fn headers(&mut self, stream: u32, fields: &[OwnField], form: Form) {
        let mut block = Vec::new();
        fields.iter().for_each(|field| self.encoder.put(field, form, &mut block));
        let count = block.chunks(16_000).count();
        for (place, piece) in block.chunks(16_000).enumerate() {
            let kind = if place == 0 { kind::HEADERS } else { kind::CONTINUATION };
            let flags = if place + 1 == count { flag::END_HEADERS } else { 0 };
            self.write(&frame(kind, flags, stream, piece)).await;
        }
    }

    /// The server's next frame of this kind.
    ///
    /// # Panics
    /// If it does not come.
    pub async fn next(&mut self, kind: u8) -> (Head, Vec<u8>) {
        tokio::time::timeout(PATIENCE, self.read_until(kind)).await.expect("the frame comes")
    }

    async fn read_until(&mut self, kind: u8) -> (Head, Vec<u8>) {
        loop {
            let mut head = [0; 9];
            self.socket.read_exact(&mut head).await.unwrap();
            let head = Head::parse(&head);
            let mut payload = vec![0; head.length as usize];
            self.socket.read_exact(&mut payload).await.unwrap();
            if head.kind == kind {
                return (head, payload);
            }
        }
    }
}
