use super::*;
use alloc::{alloc::alloc, vec, vec::Vec};
use core::alloc::Layout;
use proptest::prelude::*;

/// A zone of `pages` pages beside its maps, which does not begin where a word of the map does, and
/// where its first page is.
fn zone(pages: usize) -> (Zone, usize) {
    let maps = PAGE;
    let layout = Layout::from_size_align(pages * PAGE + maps + 3 * PAGE, WORD).unwrap();
    // SAFETY: not of size 0. Leaked: tests are short.
    let start = unsafe { alloc(layout) }.expose_provenance() + 3 * PAGE;
    // SAFETY: just allocated.
    (unsafe { Zone::new(start, start + maps + pages * PAGE) }, start + maps)
}

/// What `take_run` promises, worked out page by page. `free` has the pages from `first` on.
fn lowest(free: &[bool], first: usize, pages: usize, align: usize, keep: usize) -> Option<usize> {
    let all_free = |start: usize, count: usize| free[start..start + count].iter().all(|f| *f);
    if free.iter().filter(|f| **f).count() < pages + keep {
        return None;
    }
    let kept = (keep..=free.len()).rev().map(|end| end - keep).find(|at| all_free(*at, keep));
    let kept = kept.filter(|_| keep > 0).map_or(0..0, |at| at..at + keep);
    (0..=free.len().saturating_sub(pages)).find(|at| {
        (first + at * PAGE).is_multiple_of(align)
            && *at + pages <= free.len()
            && all_free(*at, pages)
            && (*at..at + pages).all(|page| !kept.contains(&page))
    })
}

proptest! {
    /// Runs and chunks are what is promised of them, no page has two owners, and nothing is lost.
    #[test]
    fn every_page_has_one_owner(
        steps in proptest::collection::vec((0..5_u8, 1..40_usize, 0..6_u32, 0..3_usize), 0..150)
    ) {
        const PAGES: usize = 331;
        let (mut zone, first) = zone(PAGES);
        let mut free = vec![true; PAGES];
        let mut taken: Vec<(usize, usize)> = Vec::new();
        for (what, pages, align, keep) in steps {
            let page = |address: usize| (address - first) / PAGE;
            let got = match what {
                0 | 1 => {
                    let (align, keep) = (PAGE << align, keep * 10);
                    let expected = lowest(&free, first, pages, align, keep);
                    let got = zone.take_run(pages, align, keep * PAGE);
                    prop_assert_eq!(got.map(page), expected);
                    got.map(|at| (at, pages))
                }
                2 => {
                    let whole = |at: &usize| {
                        (first + at * PAGE).is_multiple_of(CHUNK)
                            && free.get(*at..at + 4).is_some_and(|pages| !pages.contains(&false))
                    };
                    let got = zone.take();
                    prop_assert_eq!(got.map(page), (0..PAGES).rev().find(whole));
                    got.map(|at| (at, CHUNK / PAGE))
                }
                _ if !taken.is_empty() => {
                    let (at, count) = taken.swap_remove(pages % taken.len());
                    // SAFETY: taken below.
                    unsafe { zone.give(at, count) };
                    free[page(at)..][..count].fill(true);
                    None
                }
                _ => None,
            };
            if let Some((at, count)) = got {
                free[page(at)..][..count].fill(false);
                taken.push((at, count));
            }
            prop_assert_eq!(zone.unused(), free.iter().filter(|f| **f).count() * PAGE);
            let mut runs = vec![false; PAGES];
            let mut before = 0;
            for (from, to) in zone.runs() {
                prop_assert!(from > before, "adjacent runs are one");
                runs[page(from)..page(to)].fill(true);
                before = to;
            }
            prop_assert_eq!(&runs, &free);
        }
    }
}

#[test]
fn requests_beyond_the_zone_are_refused() {
    let (mut zone, _) = zone(100);
    for (pages, align, keep) in [
        (101, PAGE, 0),
        (100, PAGE, 1),
        (usize::MAX, PAGE, 0),
        (1, PAGE, usize::MAX),
        (1, 1 << 63, 0),
        (usize::MAX / PAGE, 1 << 63, PAGE),
    ] {
        assert_eq!(zone.take_run(pages, align, keep), None, "{pages} {align} {keep}");
    }
    assert!(zone.take_run(100, PAGE, 0).is_some());
    assert_eq!((zone.take(), zone.unused(), zone.runs().count()), (None, 0, 0));
    // SAFETY: nothing is there.
    let mut none = unsafe { Zone::new(4096 * 7, 4096 * 8) };
    assert_eq!((none.take(), none.take_run(1, 1, 0)), (None, None));
}
