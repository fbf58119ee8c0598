//! QUIC settings that both ends share, each with its unit, default and reason.

use std::time::Duration;

use crate::congestion::CongestionControl;

/// The default of [`QuicSettings::stream_receive_window`], in bytes (decision 0004).
pub(crate) const STREAM_RECEIVE_WINDOW: u64 = 5 * 1024 * 1024;

/// How an endpoint and its connections behave; the same type serves agent and server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuicSettings {
    /// A PING is sent when nothing else was for this long. Default 10 s: below every NAT's UDP time-out
    /// (RFC 8085, section 3.5 has 15 s as the floor).
    pub keep_alive_interval: Duration,
    /// A connection that hears nothing for this long is dead. Default 30 s; the smaller of both ends counts
    /// (RFC 9000, section 10.1).
    pub idle_timeout: Duration,
    /// Bytes of one dial that may wait unread at its receiver. Default 5 MiB: four bandwidth-delay products of
    /// 100 Mbit/s at 100 ms, which a dial needs at losses of 5 %. And 5 MiB of packets for Ethernet, 3,700 of them, cannot have
    /// the 1,024 gaps in one stream at which the library gives the connection up: most gaps, a quarter of the packets, are there
    /// when one half is lost. Of shorter packets a sender has fewer bytes under way (`connection/shared.rs`).
    pub stream_receive_window: u64,
    /// Bytes of one connection that may wait unread while no dial is stalled. Default 5 MiB, one
    /// dial's; it grows with what the path needs, and each stalled dial
    /// raises it by 8/7 of a stream window, so that a stalled dial takes nothing from the others.
    pub connection_receive_window: u64,
    /// Bytes by which all connections of the process together may raise their receive windows. Default 512 MiB.
    /// When it is spent, the dial that has been stalled longest is ended with an error. It counts bytes; the packet
    /// buffers that hold them can be several times as large when dials are interleaved.
    pub memory_budget: u64,
    /// Most bytes of one connection that its peer has not acknowledged, or that wait to be sent. Default 16 MiB: twice the
    /// bandwidth-delay product of 500 Mbit/s at 100 ms. How many there are below that follows the congestion window.
    pub most_unacknowledged: usize,
    /// Dials that an agent accepts at once on one connection; without effect on a server. Default 16,384; the limit told to the peer starts small and is
    /// raised on demand, because QUIC stacks pay memory for it up front.
    pub max_dials: u32,
    /// Bytes asked for each UDP socket buffer. Default 4 MiB; what the kernel granted is logged.
    pub udp_buffer_bytes: usize,
    /// Whether the kernel may cut one large send into datagrams (UDP GSO). Default true; it turns itself off on
    /// the first error of a network card that cannot.
    pub segmentation_offload: bool,
    /// Largest UDP payload in bytes that path MTU discovery may reach. Default 6,500: ten of them fill one
    /// segmented send of 64 KiB. The route's own MTU bounds it further.
    pub max_udp_payload: u16,
    /// Which congestion controller this end sends with. Default CUBIC.
    pub congestion_control: CongestionControl,
}

impl Default for QuicSettings {
    fn default() -> Self {
        Self {
            keep_alive_interval: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            stream_receive_window: STREAM_RECEIVE_WINDOW,
            connection_receive_window: STREAM_RECEIVE_WINDOW,
            memory_budget: 512 * 1024 * 1024,
            most_unacknowledged: 16 * 1024 * 1024,
            max_dials: 16_384,
            udp_buffer_bytes: 4 * 1024 * 1024,
            segmentation_offload: true,
            max_udp_payload: 6_500,
            congestion_control: CongestionControl::default(),
        }
    }
}
