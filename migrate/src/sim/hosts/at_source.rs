//! The source's host: carries out its state machine's actions, and runs the guest there.

use super::{NEEDED, STEP, To, World};
use crate::{
    page_set::PageSet,
    source::{self, Action, Event},
    wire::Message,
};

impl World {
    pub(super) fn at_source(&mut self, message: Message) {
        if let Message::Accept(_) = message {
            let hinted = self.guest.page_hints();
            self.source_event(Event::Reclaimed(hinted));
        }
        self.source_event(Event::Message(message));
    }

    pub(super) fn source_event(&mut self, event: Event) {
        let actions = self.source.handle(event, self.now);
        self.act(actions);
    }

    pub(super) fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(message) => self.send_to_destination(&message),
                Action::Commit(id) => {
                    assert!(
                        self.fenced && !self.runs_here,
                        "a commit from a source that could run"
                    );
                    self.committed = true;
                    let held = std::mem::take(&mut self.held);
                    let with_state = !held.is_empty();
                    self.send_to_destination(&Message::Commit(id, held));
                    if with_state {
                        self.sent(0, 0);
                    }
                }
                Action::SwitchHint => self.send_to_destination(&Message::SwitchHint(Vec::new())),
                Action::StartLog => drop(self.guest.take_dirty()),
                Action::SendPages { round, pages } => {
                    let (full, zero) = self.send_pages(&pages);
                    self.send_to_destination(&Message::RoundEnd(round));
                    if round == 0 {
                        self.source_event(Event::LeftOut(self.guest.page_hints()));
                    }
                    self.sent(full, zero);
                }
                Action::Announce { round, pages } => {
                    self.send_to_destination(&Message::Follow(pages.runs().collect()));
                    self.send_to_destination(&Message::RoundEnd(round));
                    self.sent(0, 0);
                }
                Action::PeekDirty => {
                    let dirty = self.guest.dirty();
                    let page_hints = self.guest.page_hints();
                    self.source_event(Event::Peeked { dirty, page_hints });
                }
                Action::TakeDirty => {
                    let dirty = self.guest.take_dirty();
                    let page_hints = self.guest.page_hints();
                    self.source_event(Event::Dirty { dirty, page_hints });
                }
                Action::Stop { .. } => {
                    self.runs_here = false;
                    let requested = self.now;
                    self.now += STEP;
                    self.stopped_memory = Some(self.guest.memory.clone());
                    let (dirty, page_hints) = (self.guest.take_dirty(), self.guest.page_hints());
                    let stopped = self.now;
                    self.source_event(Event::Stopped(source::Stopped {
                        requested,
                        stopped,
                        quiescent: true,
                        dirty,
                        page_hints,
                        needed: NEEDED.collect(),
                    }));
                }
                Action::SendLast { pages, follow, hold } => {
                    self.send_to_destination(&Message::Follow(follow.runs().collect()));
                    let (full, zero) = self.send_pages(&pages);
                    if hold {
                        self.held = b"state".to_vec();
                        self.source_event(Event::Held);
                    } else {
                        self.send_to_destination(&Message::State(b"state".to_vec()));
                        self.sent(full, zero);
                    }
                }
                Action::SendFollowing(pages) => {
                    assert!(self.committed && !self.runs_here);
                    let (full, zero) = self.send_pages(&pages);
                    self.sent(full, zero);
                }
                Action::Fence => self.fenced = true,
                Action::RunHere => {
                    assert!(self.there.is_none(), "the source resumes though the destination runs");
                    self.runs_here = true;
                }
                Action::HandOn => self.send_to_destination(&Message::ForwardedEnd),
                Action::Reconnect { .. } => {
                    self.link.reconnect();
                    self.source_event(Event::Reconnected);
                }
                Action::End(ended) => self.ended = Some(ended),
            }
        }
    }

    fn sent(&mut self, full: u64, zero: u64) {
        let bytes = (full + 1) * 4096;
        self.source_event(Event::Sent(source::Sent { bytes, full, zero, ..Default::default() }));
    }

    fn send_pages(&mut self, pages: &PageSet) -> (u64, u64) {
        let (mut full, mut zero) = (0, 0);
        for page in pages.iter() {
            if self.guest.memory[page] == 0 {
                zero += 1;
                self.send_to_destination(&Message::Zero(vec![(page as u64, 1)]));
            } else {
                full += 1;
                let message = Message::Pages(vec![(page as u64, self.guest.page(page))]);
                self.send_to_destination(&message);
            }
        }
        (full, zero)
    }

    fn send_to_destination(&mut self, message: &Message) {
        self.link.send(To::Destination, message);
    }
}
