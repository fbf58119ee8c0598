//! One stream of packets.

use std::{sync::Arc, time::Duration};

use konnectivity_transport::packet::Packet;
use tokio::time::timeout;

use super::{
    connection::Shared,
    frame::{Frame, MAX_PAYLOAD, code},
    message,
    state::Stream,
};
use crate::ends::within;

/// One call of `ProxyService/Proxy`. It stays open when this is dropped.
#[derive(Debug, Clone)]
pub struct Rpc {
    pub(super) shared: Arc<Shared>,
    /// The number of its stream.
    pub id: u32,
}

/// How a call has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The status of HTTP.
    pub http: Option<String>,
    /// The status of gRPC.
    pub code: Option<u32>,
    /// What it says, as it was on the wire.
    pub message: String,
    /// The code that the stream was reset with.
    pub reset: Option<u32>,
}

impl Rpc {
    /// Sends a packet, as far as the windows let it.
    ///
    /// # Panics
    /// When the connection is gone, or the windows stay closed.
    pub async fn send(&self, packet: &Packet) {
        self.send_bytes(&message(packet)).await;
    }

    /// Sends bytes in frames of DATA, as far as the windows let them.
    ///
    /// # Panics
    /// When the connection is gone, or the windows stay closed.
    pub async fn send_bytes(&self, bytes: &[u8]) {
        within("the windows to open", self.send_slowly(bytes)).await;
    }

    /// The same without a limit of time, for peers that do not read.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn send_slowly(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let length = self.room(bytes.len()).await;
            let (now, later) = bytes.split_at(length);
            self.frame(Frame::data(self.id, now)).await;
            bytes = later;
        }
    }

    /// Takes room for some of `wanted` bytes from both windows, when there is any.
    async fn room(&self, wanted: usize) -> usize {
        let mut states = self.shared.state.subscribe();
        loop {
            let mut taken = 0;
            self.shared.state.send_if_modified(|state| {
                let Some(stream) = state.streams.get_mut(&self.id) else { return false };
                let room = stream.window.min(state.window).max(0);
                taken = wanted.min(MAX_PAYLOAD).min(usize::try_from(room).unwrap_or(usize::MAX));
                let bytes = i64::try_from(taken).expect("at most a frame");
                stream.window -= bytes;
                state.window -= bytes;
                // Nobody waits for less room.
                false
            });
            if taken > 0 {
                return taken;
            }
            // The sender is in the struct.
            let _ = states.changed().await;
            assert!(states.borrow().ended.is_none(), "the connection has ended: {:?}", states.borrow().ended);
        }
    }

    /// Sends a frame as it is.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn frame(&self, frame: Frame) {
        self.shared.send([frame]).await.expect("the connection is open");
    }

    /// Ends our half.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn end(&self) {
        self.frame(Frame::data(self.id, []).ending()).await;
    }

    /// Cancels the call, as a Go client does.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn cancel(&self) {
        self.frame(Frame::reset(self.id, code::CANCEL)).await;
    }

    /// The next packet; `None` after the last one, when the call is over.
    ///
    /// # Panics
    /// When nothing comes.
    pub async fn next(&self) -> Option<Packet> {
        within("the next packet", self.wait()).await
    }

    async fn wait(&self) -> Option<Packet> {
        let mut states = self.shared.state.subscribe();
        let is_ready = |stream: &Stream| !stream.packets.is_empty() || stream.is_over();
        // The sender is in the struct.
        let _ = states.wait_for(|state| state.ended.is_some() || is_ready(&state.streams[&self.id])).await;
        let mut packet = None;
        self.shared.state.send_if_modified(|state| {
            packet = state.streams.get_mut(&self.id).and_then(|stream| stream.packets.pop_front());
            false
        });
        packet
    }

    /// The next packet.
    ///
    /// # Panics
    /// When none comes, or the call is over.
    pub async fn packet(&self) -> Packet {
        match self.next().await {
            Some(packet) => packet,
            None => panic!("the call is over: {:?}", self.status_so_far()),
        }
    }

    /// Nothing comes for so long. A sharp test of "nothing" needs a time; a short one can only miss a fault.
    ///
    /// # Panics
    /// When something comes.
    pub async fn is_silent(&self, time: Duration) {
        let came = timeout(time, self.wait()).await;
        assert!(came.is_err(), "{came:?} came, {:?}", self.status_so_far());
    }

    /// Waits for the end of the call and tells how it was. Packets before it are left for [`Rpc::next`].
    ///
    /// # Panics
    /// When it does not end.
    pub async fn status(&self) -> Status {
        let mut states = self.shared.state.subscribe();
        let over = states.wait_for(|state| state.ended.is_some() || state.streams[&self.id].is_over());
        // The sender is in the struct.
        let _ = within("the end of the call", over).await;
        self.status_so_far()
    }

    fn status_so_far(&self) -> Status {
        let state = self.shared.state.borrow();
        let stream = &state.streams[&self.id];
        Status {
            http: stream.header(":status").map(str::to_owned),
            code: stream.header("grpc-status").and_then(|code| code.parse().ok()),
            message: stream.header("grpc-message").unwrap_or_default().to_owned(),
            reset: stream.reset,
        }
    }

    /// A header that has come.
    pub fn header(&self, name: &str) -> Option<String> {
        self.shared.state.borrow().streams[&self.id].header(name).map(str::to_owned)
    }

    /// Does not open the window again for what comes from now on.
    pub fn hold(&self) {
        self.shared.state.send_modify(|state| {
            state.streams.get_mut(&self.id).expect("it was opened").held = true;
        });
    }

    /// Opens the window again.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn release(&self) {
        let mut credit = None;
        self.shared.state.send_modify(|state| {
            let stream = state.streams.get_mut(&self.id).expect("it was opened");
            stream.held = false;
            credit = stream.credit();
        });
        if let Some(credit) = credit {
            self.frame(Frame::window_update(self.id, credit)).await;
        }
    }

    /// Bytes that have come while the window was held.
    pub fn held_bytes(&self) -> u32 {
        self.shared.state.borrow().streams[&self.id].owed
    }

    /// What may still be sent on the stream.
    pub fn window(&self) -> i64 {
        self.shared.state.borrow().streams[&self.id].window
    }
}
