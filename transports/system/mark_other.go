//go:build !linux

package system

// Marked does nothing here: only Linux has marks.
func Marked(uint32) Option { return func(*network) {} }
