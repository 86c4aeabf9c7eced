//! Journals from outside: what is promised, and what happens when something goes wrong.

mod common;
mod damage;
mod faults;
mod golden;
mod kill;
mod live;
mod power_cut;
