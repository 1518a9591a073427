//! Values by revision: pending, hot, and on the engine.
