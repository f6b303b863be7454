//! Real processes on loopback, driven through `--json`.
//!
//! One binary, because each links the whole program:
//! - `harness`: networks of nodes in throw-away folders
//! - `alive`: suspects, deaths, freezes, reports, standing, exchange of cards, hostile peers
//! - `seeds`: registrations, dead seeds, discovery, remembered peers
//! - `broadcast`: once each to everybody, gaps filled, gossip, output files; twenty in a line, a partition, neighbours that lie
//!   and flood
//! - `chat`: delivery, receipts, order, hostile texts, access list
//! - `links`: restarts, simultaneous dials, goodbyes, mandatory peers
//! - `crash`: SIGKILL at any moment loses nothing that was acknowledged
//! - `bad_input`: wrong flags, files and lines, each with its exit status
//! - `files`: transfers whole and resumed, faults, names, policies, `node send` and `node recv`
//! - `front_ends`: scripts, one-shot commands, the control socket
//! - `prompt`: the line editor and the menu, in a pseudo-terminal whose screen is looked at
//! - `lan`: LAN discovery between network namespaces
//! - `retention`: how many broadcasts are kept for others
//! - `reference`: the pages in `docs` that follow from the program
//! - `transcripts`: the Markdown files in `tests/transcripts`, run and compared

mod alive;
mod bad_input;
mod broadcast;
mod chat;
mod crash;
mod files;
mod front_ends;
mod harness;
mod lan;
mod links;
mod prompt;
mod reference;
mod retention;
mod seeds;
mod transcripts;
