//! QUIC's parameters, as both ends of a connection set them.

use std::{sync::Arc, time::Duration};

use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use super::BindError;
use crate::{congestion::Room, settings::QuicSettings};

/// Round-trip time assumed before the first sample: a lost first packet is sent again after three of them, 0.3 s.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Packets may arrive this much out of order before they count as lost; the largest that the library's duplicate
/// detection accepts.
const REORDERING: u32 = 128;

/// A packet that was sent so many round trips ago is lost if a later one has arrived. With the library's 9/8, jitter of a
/// fifth of the round trip has a third of the packets sent twice; more than this, and a lost echo is noticed late. Where
/// much is sent, [`REORDERING`] tells of a loss long before.
const TIME_THRESHOLD: f32 = 1.25;

/// Congestion window at the start, in full packets.
const INITIAL_WINDOW: u64 = 32 * 1200;

/// Never the limit: the send credit is in front of it.
const SEND_WINDOW: u64 = 1 << 30;

/// The parameters of one connection: `payload` is the largest that the route takes, `streams` the number that the peer may
/// open.
///
/// # Errors
/// [`BindError::Setting`].
pub(super) fn transport_config(
    settings: &QuicSettings,
    payload: u16,
    streams: u32,
    room: Arc<Room>,
) -> Result<TransportConfig, BindError> {
    let window = |bytes, name| VarInt::from_u64(bytes).map_err(|_| BindError::Setting { name });
    let idle = IdleTimeout::try_from(settings.idle_timeout).map_err(|_| BindError::Setting { name: "idle-timeout" })?;
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(payload);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(settings.keep_alive_interval))
        .stream_receive_window(window(settings.stream_receive_window, "stream-receive-window")?)
        .receive_window(window(settings.connection_receive_window, "connection-receive-window")?)
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .initial_rtt(INITIAL_RTT)
        .packet_threshold(REORDERING)
        .time_threshold(TIME_THRESHOLD)
        .mtu_discovery_config(Some(discovery))
        .congestion_controller_factory(settings.congestion_control.factory(INITIAL_WINDOW, room))
        .enable_segmentation_offload(settings.segmentation_offload);
    Ok(config)
}
