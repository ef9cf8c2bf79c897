//! Two on one slot: one of them writes at any time, the other is ready to go on, and what a paused one had on
//! its way changes nothing.

mod commands;
mod outage;
mod pair;
mod scene;
