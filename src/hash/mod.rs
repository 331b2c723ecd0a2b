//! SHA-256 of two streams at a time, which is faster than one after the other.
//!
//! With a processor's SHA extensions one stream is bound by the latency of its rounds, whatever the
//! library; a second stream on the same core is nearly free. Everything in a repository is hashed
//! twice (a blob's plaintext, and its sealed form as a part of a pack), so there is always another
//! stream: [`update_all`] takes any number of streams, and processes two at a time as long as it
//! can.
//!
//! [`sha2`] processes single streams; the pairing and the kernel for it are ours. Without the
//! extensions a stream keeps a core busy by itself, and [`ring`] is nearly twice as fast as
//! [`sha2`].

#[cfg(target_arch = "x86_64")]
mod x86;

use ring::digest;
use sha2::block_api::compress256;

/// Bytes in a block.
const BLOCK: usize = 64;

/// FIPS 180-4, section 5.3.3.
const INITIAL: [u32; 8] =
    [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];

/// A hash that is being computed.
#[derive(Clone)]
pub struct Sha256(Way);

#[derive(Clone)]
enum Way {
    Pairs(Blocks),
    Alone(digest::Context),
}

/// A hash whose blocks can be processed together with those of another.
#[derive(Clone)]
struct Blocks {
    state: [u32; 8],
    /// Bytes added so far.
    length: u64,
    /// The last `length % 64` bytes, which do not fill a block yet.
    rest: [u8; BLOCK],
}

/// Bytes to be added to a hash, one part after the other.
pub struct Stream<'a> {
    pub hash: &'a mut Sha256,
    pub parts: &'a [&'a [u8]],
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl Sha256 {
    pub fn new() -> Self {
        #[cfg(target_arch = "x86_64")]
        if !x86::able() {
            return Self::alone();
        }
        Self::in_pairs()
    }

    fn in_pairs() -> Self {
        Sha256(Way::Pairs(Blocks { state: INITIAL, length: 0, rest: [0; BLOCK] }))
    }

    fn alone() -> Self {
        Sha256(Way::Alone(digest::Context::new(&digest::SHA256)))
    }

    /// Adds bytes without another stream.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Way::Pairs(hash) => hash.update(bytes),
            Way::Alone(context) => context.update(bytes),
        }
    }

    /// The hash of all bytes added.
    pub fn finish(self) -> [u8; 32] {
        match self.0 {
            Way::Pairs(hash) => hash.finish(),
            Way::Alone(context) => context.finish().as_ref().try_into().expect("32 bytes"),
        }
    }
}

impl Blocks {
    fn update(&mut self, bytes: &[u8]) {
        let blocks = self.take_up(bytes);
        compress256(&mut self.state, blocks);
    }

    fn finish(mut self) -> [u8; 32] {
        let bits = self.length * 8;
        let used = self.used();
        let mut end = [0; 2 * BLOCK];
        end[..used].copy_from_slice(&self.rest[..used]);
        end[used] = 0x80;
        let length = if used < BLOCK - 8 { BLOCK } else { 2 * BLOCK };
        end[length - 8..length].copy_from_slice(&bits.to_be_bytes());
        compress256(&mut self.state, end[..length].as_chunks().0);
        let mut hash = [0; 32];
        for (bytes, word) in hash.as_chunks_mut().0.iter_mut().zip(self.state) {
            *bytes = word.to_be_bytes();
        }
        hash
    }

    fn used(&self) -> usize {
        (self.length % BLOCK as u64) as usize
    }

    /// Counts `bytes`, keeps those after their last whole block, and returns the whole blocks that
    /// are still to be compressed.
    fn take_up<'b>(&mut self, mut bytes: &'b [u8]) -> &'b [[u8; BLOCK]] {
        let used = self.used();
        self.length += bytes.len() as u64;
        if used > 0 {
            let missing = bytes.len().min(BLOCK - used);
            self.rest[used..used + missing].copy_from_slice(&bytes[..missing]);
            bytes = &bytes[missing..];
            if used + missing < BLOCK {
                return &[];
            }
            compress256(&mut self.state, &[self.rest]);
        }
        let (blocks, rest) = bytes.as_chunks();
        self.rest[..rest.len()].copy_from_slice(rest);
        blocks
    }
}

/// Hashes each message, and processes a stream `beside` them at the same time.
pub fn hash_all(messages: &[&[u8]], beside: Option<Stream<'_>>) -> Vec<[u8; 32]> {
    let mut hashes = vec![Sha256::new(); messages.len()];
    let pairs = hashes.iter_mut().zip(messages);
    let streams = pairs.map(|(hash, message)| Stream { hash, parts: std::slice::from_ref(message) });
    update_all(streams.chain(beside).collect());
    hashes.into_iter().map(Sha256::finish).collect()
}

/// Adds its bytes to each hash, two streams at a time: always the two with the most bytes left, so
/// that none runs alone in the end unless it has more than all others together.
pub fn update_all(streams: Vec<Stream<'_>>) {
    /// Minimum number of blocks before the two streams are chosen again.
    const TURN: usize = 256;
    let mut waiting: Vec<Running> = streams.into_iter().filter_map(Running::new).collect();
    waiting.sort_unstable_by_key(|stream| stream.left);
    while let Some(mut first) = waiting.pop() {
        let Some(mut second) = waiting.pop() else { return first.finish() };
        // The two run until the third has as much left as the second.
        let lead = second.left - waiting.last().map_or(0, |third| third.left);
        let both = (lead / BLOCK).max(TURN).min(first.blocks.len()).min(second.blocks.len());
        let [first_blocks, second_blocks] = [&mut first, &mut second].map(|stream| stream.take(both));
        compress_pair(&mut first.hash.state, first_blocks, &mut second.hash.state, second_blocks);
        for stream in [first, second].into_iter().filter_map(Running::ready) {
            let place = waiting.partition_point(|other| other.left < stream.left);
            waiting.insert(place, stream);
        }
    }
}

/// A stream that is being processed.
struct Running<'a> {
    hash: &'a mut Blocks,
    /// The remaining whole blocks of the current part.
    blocks: &'a [[u8; BLOCK]],
    parts: &'a [&'a [u8]],
    /// Bytes in `blocks` and `parts`.
    left: usize,
}

impl<'a> Running<'a> {
    /// The stream, if it has blocks that can be compressed beside another's. A hash without pairing
    /// gets all its bytes here.
    fn new(Stream { hash, parts }: Stream<'a>) -> Option<Self> {
        match &mut hash.0 {
            Way::Pairs(hash) => {
                Running { hash, blocks: &[], parts, left: parts.iter().map(|part| part.len()).sum() }.ready()
            }
            Way::Alone(context) => {
                parts.iter().for_each(|part| context.update(part));
                None
            }
        }
    }

    /// The stream, if blocks are left to be compressed.
    fn ready(mut self) -> Option<Self> {
        while self.blocks.is_empty() {
            let (part, later) = self.parts.split_first()?;
            self.blocks = self.hash.take_up(part);
            self.left -= part.len() - self.blocks.as_flattened().len();
            self.parts = later;
        }
        Some(self)
    }

    /// The next blocks.
    fn take(&mut self, count: usize) -> &'a [[u8; BLOCK]] {
        self.left -= count * BLOCK;
        self.blocks.split_off(..count).expect("no more blocks than are left")
    }

    /// Adds the rest without another stream.
    fn finish(self) {
        compress256(&mut self.hash.state, self.blocks);
        self.parts.iter().for_each(|part| self.hash.update(part));
    }
}

/// Adds the same number of blocks to each of two states.
fn compress_pair(a: &mut [u32; 8], a_blocks: &[[u8; BLOCK]], b: &mut [u32; 8], b_blocks: &[[u8; BLOCK]]) {
    #[cfg(target_arch = "x86_64")]
    if x86::compress_pair(a, a_blocks, b, b_blocks) {
        return;
    }
    compress256(a, a_blocks);
    compress256(b, b_blocks);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::Digest;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The examples of FIPS 180-4, also the long one; each paired with every other.
    #[test]
    fn agrees_with_the_published_vectors() {
        let million = vec![b'a'; 1_000_000];
        let vectors: [(&[u8], &str); 4] = [
            (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            ),
            (&million, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
        ];
        for (message, expected) in vectors {
            for mut alone in [Sha256::in_pairs(), Sha256::alone()] {
                alone.update(message);
                assert_eq!(hex(&alone.finish()), expected);
            }
            for (other, beside) in vectors {
                let hashes = hash_all(&[message, other], None);
                assert_eq!([hex(&hashes[0]), hex(&hashes[1])], [expected, beside]);
            }
        }
        assert!(hash_all(&[], None).is_empty());
    }

    proptest! {
        #[test]
        fn any_streams_in_any_portions_agree_with_sha2(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..7),
            cuts in prop::collection::vec(1usize..700, 1..9),
        ) {
            let expected: Vec<[u8; 32]> = messages.iter().map(|message| sha2::Sha256::digest(message).into()).collect();
            let whole: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(&hash_all(&whole, None), &expected);

            // Each in portions, two parts at a time; every third hash is without pairing.
            let way = |n| if n % 3 == 2 { Sha256::alone() } else { Sha256::in_pairs() };
            let mut hashes: Vec<_> = (0..messages.len()).map(way).collect();
            let mut rests = whole;
            let mut cuts = cuts.into_iter().cycle();
            while rests.iter().any(|rest| !rest.is_empty()) {
                let portions: Vec<[&[u8]; 2]> = rests.iter_mut().map(|rest| {
                    [(); 2].map(|()| rest.split_off(..rest.len().min(cuts.next().expect("endless"))).expect("at most all"))
                }).collect();
                let streams = hashes.iter_mut().zip(&portions).map(|(hash, parts)| Stream { hash, parts });
                update_all(streams.collect());
            }
            let hashes: Vec<_> = hashes.into_iter().map(Sha256::finish).collect();
            prop_assert_eq!(hashes, expected);
        }
    }
}
