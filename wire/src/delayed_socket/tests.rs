use std::net::UdpSocket;

use quinn::{Runtime, TokioRuntime};

use super::*;

/// Longer than any step takes.
const SOON: Duration = Duration::from_secs(10);

async fn receive(socket: &DelayedSocket) -> Vec<u8> {
    let mut space = [0; 64];
    let mut buffers = [IoSliceMut::new(&mut space)];
    let mut metas = [RecvMeta::default()];
    let receive = poll_fn(|context| socket.poll_recv(context, &mut buffers, &mut metas));
    let count = tokio::time::timeout(SOON, receive).await.expect("it never arrives").unwrap();
    assert_eq!(count, 1);
    space[..metas[0].len].to_vec()
}

#[tokio::test]
async fn datagrams_under_way_together_each_arrive_when_due() {
    let far = UdpSocket::bind("127.0.0.1:0").unwrap();
    let near = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (from, to) = (far.local_addr().unwrap(), near.local_addr().unwrap());
    let socket = DelayedSocket::new(TokioRuntime.wrap_udp_socket(near).unwrap());
    let delay = Duration::from_millis(300);
    socket.set_links(vec![(from, LinkDelay { to: Duration::ZERO, from: delay })], false);
    // While the socket waits for the first datagram it reads the others and queues them.
    let sending = async {
        let mut sent = Vec::new();
        for number in 0..5 {
            sent.push(Instant::now());
            far.send_to(&[number], to).unwrap();
            tokio::time::sleep(delay / 10).await;
        }
        sent
    };
    let receiving = async {
        let mut received = Vec::new();
        for number in 0..5 {
            assert_eq!(receive(&socket).await, [number]);
            received.push(Instant::now());
        }
        received
    };
    let (sent, received) = tokio::join!(sending, receiving);
    for (sent, received) in sent.into_iter().zip(received) {
        // The upper bound is below SOON: a timeout polls the receiver once more when it expires,
        // and that must not count as an arrival.
        assert!((delay..SOON / 2).contains(&(received - sent)), "{:?}", received - sent);
    }
}
