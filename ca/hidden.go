package ca

import (
	"bytes"
	"crypto/rand"
)

// hidden is a secret behind a function. fmt calls no method of an unexported field, and follows a pointer there
// for some verbs; of a function it knows nothing but the address.
type hidden func() []byte

// hide returns b as a secret; each call of it gives a copy.
func hide(b []byte) hidden {
	b = bytes.Clone(b)
	return func() []byte { return bytes.Clone(b) }
}

// draw returns n random bytes as a secret.
func draw(n int) hidden {
	b := make([]byte, n)
	rand.Read(b)
	return hide(b)
}
