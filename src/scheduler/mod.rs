//! `admit`, `apply`, `resume` over State, Event, Effect.
