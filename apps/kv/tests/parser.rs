//! Property tests of the parser: for any input, split in any way, it returns the same and keeps no
//! more than it should.

use kv_core::protocol::parser::Limits;
use kv_core::protocol::{Parsed, Parser};
use proptest::prelude::*;

/// The result of an input: requests, `None` for those too large, and whether it ended in an error.
#[derive(Debug, PartialEq)]
struct Outcome {
    requests: Vec<Option<Vec<Vec<u8>>>>,
    error: Option<String>,
}

fn parse<'a>(pieces: impl Iterator<Item = &'a [u8]>, limits: Limits) -> (Outcome, usize) {
    let (mut parser, mut buffer) = (Parser::default(), Vec::new());
    let mut outcome = Outcome { requests: Vec::new(), error: None };
    let mut most = 0;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let consumed = match parser.parse(&buffer, limits) {
                Ok(Parsed::Incomplete) => break,
                Ok(Parsed::Request(n)) => {
                    outcome.requests.push(Some(
                        parser.args(&buffer[..n]).from(0).map(<[u8]>::to_vec).collect(),
                    ));
                    n
                }
                Ok(Parsed::TooLarge(n)) => {
                    outcome.requests.push(None);
                    n
                }
                Ok(Parsed::Nothing(n) | Parsed::Discarded(n)) => n,
                Err(error) => {
                    outcome.error = Some(error.to_string());
                    return (outcome, most);
                }
            };
            assert!(consumed > 0 && consumed <= buffer.len());
            buffer.drain(..consumed);
        }
        most = most.max(buffer.len());
    }
    (outcome, most)
}

const LIMITS: Limits = Limits { string: 300, request: 500 };

fn request() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6)
}

fn encode(words: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend(format!("${}\r\n", word.len()).as_bytes());
        out.extend(word);
        out.extend(b"\r\n");
    }
    out
}

/// Splits the input at these places.
fn cut<'a>(input: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|place| place.index(input.len() + 1)).collect();
    places.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for place in places {
        pieces.push(&input[from..place]);
        from = place;
    }
    pieces.push(&input[from..]);
    pieces
}

proptest! {
    #[test]
    fn encoded_requests_parse_to_the_same(requests in prop::collection::vec(request(), 1..5)) {
        let input: Vec<u8> = requests.iter().flat_map(|words| encode(words)).collect();
        let want = Outcome { requests: requests.into_iter().map(Some).collect(), error: None };
        // At every byte.
        for at in 0..=input.len() {
            let (got, _) = parse([&input[..at], &input[at..]].into_iter(), LIMITS);
            prop_assert_eq!(&got, &want);
        }
        prop_assert_eq!(parse(input.chunks(1), LIMITS).0, want);
    }

    #[test]
    fn the_result_for_noise_is_the_same_wherever_it_is_split(
        input in prop::collection::vec(
            prop_oneof![
                Just(b"*2\r\n".to_vec()), Just(b"$3\r\n".to_vec()), Just(b"abc\r\n".to_vec()),
                    Just(b"\r\n".to_vec()),
                Just(b"*0\r\n".to_vec()), Just(b"$250\r\n".to_vec()), Just(b"\"q\" ".to_vec()),
                prop::collection::vec(any::<u8>(), 0..20),
            ],
            0..30,
        ),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let input = input.concat();
        let (whole, _) = parse([&input[..]].into_iter(), LIMITS);
        let (pieces, _) = parse(cut(&input, &places).into_iter(), LIMITS);
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn a_request_that_is_too_large_is_not_kept(
        sizes in prop::collection::vec(0usize..300, 1..12),
        step in 1usize..100,
    ) {
        let words: Vec<Vec<u8>> = sizes.iter().map(|&n| vec![b'x'; n]).collect();
        let input = [encode(&words), encode(&[b"PING".to_vec()])].concat();
        let (got, most) = parse(input.chunks(step), LIMITS);
        prop_assert_eq!(got.error, None);
        prop_assert_eq!(got.requests.len(), 2);
        prop_assert_eq!(&got.requests[1], &Some(vec![b"PING".to_vec()]));
        prop_assert!(got.requests[0].is_none() || got.requests[0].as_ref() == Some(&words));
        prop_assert!(most <= LIMITS.request + step, "{} bytes were kept", most);
    }
}
