//! One dial through a stream of packets.

use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use konnectivity_transport::packet::{CloseResponse, DialResponse, Packet, PacketType, Payload};

use super::{connection::Connection, rpc::Rpc, state::data_of};

/// Bytes of a target in one packet, at most.
pub const MAX_DATA: usize = 64 * 1024;

/// An established dial.
#[derive(Debug)]
pub struct Tunnel {
    /// Its stream.
    pub rpc: Rpc,
    /// Its conn id.
    pub id: i64,
    unread: Vec<u8>,
}

/// The dials of this process are numbered, so that no two have the same number.
fn number() -> i64 {
    static NEXT: AtomicI64 = AtomicI64::new(1_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Asks for a target on a stream; the number that the answer will have.
///
/// # Panics
/// When the connection is gone.
pub async fn ask(rpc: &Rpc, target: impl ToString) -> i64 {
    let number = number();
    rpc.send(&Packet::dial_request(target.to_string(), number)).await;
    number
}

/// Waits for the answer to a dial.
///
/// # Errors
/// The text of the answer.
///
/// # Panics
/// When something else comes.
pub async fn answer(rpc: &Rpc, number: i64) -> Result<i64, String> {
    let packet = rpc.packet().await;
    assert_eq!(packet.kind(), Some(PacketType::DialRsp), "{packet:?}");
    let Some(Payload::DialResponse(DialResponse { error, connect_id, random })) = packet.payload else {
        panic!("an answer without content")
    };
    assert_eq!(random, number, "the answer to another dial: {error:?}");
    if error.is_empty() {
        assert_ne!(connect_id, 0, "a Go client takes 0 for no connection");
        return Ok(connect_id);
    }
    assert_eq!(connect_id, 0, "{error}");
    Err(error)
}

/// Dials on a stream.
///
/// # Errors
/// The text of the answer.
///
/// # Panics
/// When something else comes.
pub async fn dial(rpc: &Rpc, target: impl ToString) -> Result<i64, String> {
    let number = ask(rpc, target).await;
    answer(rpc, number).await
}

/// What a CLOSE_RSP says: the conn id, and why.
///
/// # Panics
/// When it is another packet.
pub fn closed(packet: &Packet) -> (i64, String) {
    assert_eq!(packet.kind(), Some(PacketType::CloseRsp), "{packet:?}");
    let Some(Payload::CloseResponse(CloseResponse { error, connect_id })) = &packet.payload else {
        panic!("an answer without content")
    };
    (*connect_id, error.clone())
}

impl Tunnel {
    /// Dials on a stream of its own.
    ///
    /// # Errors
    /// The text of the answer.
    ///
    /// # Panics
    /// When something else comes.
    pub async fn dial(connection: &Connection, target: impl ToString) -> Result<Self, String> {
        let rpc = connection.call().await;
        let id = dial(&rpc, target).await?;
        Ok(Self::over(rpc, id))
    }

    /// An established dial.
    pub fn over(rpc: Rpc, id: i64) -> Self {
        Self { rpc, id, unread: Vec::new() }
    }

    /// Sends bytes in one packet, as a Go client does, however many they are.
    ///
    /// # Panics
    /// When the connection is gone, or the windows stay closed.
    pub async fn write(&self, bytes: &[u8]) {
        self.rpc.send(&Packet::data(self.id, Bytes::copy_from_slice(bytes))).await;
    }

    /// The next bytes as they come, none after CLOSE_RSP, which must say nothing.
    ///
    /// # Panics
    /// When something else comes, or nothing, or a packet of no bytes or of too many.
    pub async fn read(&mut self) -> Vec<u8> {
        if !self.unread.is_empty() {
            return std::mem::take(&mut self.unread);
        }
        let packet = self.rpc.packet().await;
        if let Some(data) = self.data(&packet) {
            return data;
        }
        assert_eq!(closed(&packet), (self.id, String::new()));
        Vec::new()
    }

    /// What a packet carries, if it carries any bytes.
    fn data(&self, packet: &Packet) -> Option<Vec<u8>> {
        if packet.kind() != Some(PacketType::Data) {
            return None;
        }
        let Some(Payload::Data(data)) = &packet.payload else { panic!("DATA without content") };
        assert_eq!(data.connect_id, self.id);
        let bytes = data_of(packet).unwrap_or_default();
        assert!((1..=MAX_DATA).contains(&bytes.len()), "DATA of {} bytes", bytes.len());
        Some(bytes.to_vec())
    }

    /// The next so many bytes.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn read_exact(&mut self, bytes: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < bytes {
            let more = self.read().await;
            assert!(!more.is_empty(), "closed after {} of {bytes} bytes", all.len());
            all.extend(more);
        }
        self.unread = all.split_off(bytes);
        all
    }

    /// Sends `bytes` and reads as many back.
    ///
    /// # Panics
    /// When they fail to come back, or others do.
    pub async fn echo(&mut self, bytes: &[u8]) {
        const CHUNK: usize = 32 * 1024;
        let writer = Self::over(self.rpc.clone(), self.id);
        let send = async {
            for chunk in bytes.chunks(CHUNK) {
                writer.write(chunk).await;
            }
        };
        let (back, ()) = tokio::join!(self.read_exact(bytes.len()), send);
        assert!(back == bytes, "other bytes came back than were sent");
    }

    /// Everything up to CLOSE_RSP, and what that says.
    ///
    /// # Panics
    /// When it does not come, or something else does.
    pub async fn rest(&mut self) -> (Vec<u8>, String) {
        let mut all = std::mem::take(&mut self.unread);
        loop {
            let packet = self.rpc.packet().await;
            match self.data(&packet) {
                Some(bytes) => all.extend(bytes),
                None => {
                    let (id, error) = closed(&packet);
                    assert_eq!(id, self.id);
                    return (all, error);
                }
            }
        }
    }

    /// Asks for the close.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn ask_close(&self) {
        self.rpc.send(&Packet::close_request(self.id)).await;
    }

    /// Closes: everything that still comes, and what CLOSE_RSP says.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn close(&mut self) -> (Vec<u8>, String) {
        self.ask_close().await;
        self.rest().await
    }
}
