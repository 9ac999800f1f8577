package tcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
)

// maxID bounds a member's id on the wire.
const maxID = 255

// hello is what a dialler says first. Its bytes, little-endian:
//
//	0 magic "LRHI"   4 version 2   5 run   13 generation   21 fingerprint of the member list
//	29 length of from, from, length of to, to (a byte each)
type hello struct {
	Run, Generation, Members uint64
	From, To                 string
}

const (
	helloMagic   = 'L' | 'R'<<8 | 'H'<<16 | 'I'<<24
	helloVersion = 2
	helloFixed   = 29
)

var errHello = errors.New("not a lorad all-reduce hello of this version: run the same lorad release on every node")

func (h hello) append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(le.AppendUint32(b, helloMagic), helloVersion)
	b = le.AppendUint64(le.AppendUint64(le.AppendUint64(b, h.Run), h.Generation), h.Members)
	b = append(append(b, byte(len(h.From))), h.From...)
	return append(append(b, byte(len(h.To))), h.To...)
}

// readHello reads at most helloFixed + 2*(1+maxID) bytes.
func readHello(r io.Reader) (h hello, err error) {
	var b [helloFixed]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return h, err
	}
	le := binary.LittleEndian
	if le.Uint32(b[:]) != helloMagic || b[4] != helloVersion {
		return h, errHello
	}
	h.Run, h.Generation, h.Members = le.Uint64(b[5:]), le.Uint64(b[13:]), le.Uint64(b[21:])
	if h.From, err = readShort(r); err != nil {
		return h, err
	}
	h.To, err = readShort(r)
	return h, err
}

// readShort reads a string with a byte of length.
func readShort(r io.Reader) (string, error) {
	var b [1 + maxID]byte
	if _, err := io.ReadFull(r, b[:1]); err != nil {
		return "", err
	}
	s := b[1 : 1+int(b[0])]
	_, err := io.ReadFull(r, s)
	return string(s), err
}

// The acceptor's answers, a byte each; a reason (a byte of length, text) follows all but yes.
const (
	yes   byte = 'y'
	later byte = 'l' // nobody here waits for you yet, or too many do: try again
	no    byte = 'n'
	ack   byte = 'a' // the dialler's word after a yes
)

// refuse answers and hangs up.
func refuse(conn net.Conn, code byte, reason string) {
	reason = reason[:min(len(reason), maxID)]
	_, _ = conn.Write(append([]byte{code, byte(len(reason))}, reason...))
	_ = conn.Close()
}

// errLater is a refusal that time may cure.
var errLater = errors.New("asked to try again")

// refusedError is a refusal that time does not cure.
type refusedError string

func (e refusedError) Error() string { return "refused: " + string(e) }

// readAnswer reads the acceptor's answer: nil for yes.
func readAnswer(r io.Reader) error {
	var code [1]byte
	if _, err := io.ReadFull(r, code[:]); err != nil {
		return err
	}
	if code[0] == yes {
		return nil
	}
	reason, err := readShort(r)
	switch {
	case err != nil:
		return err
	case code[0] == later:
		return fmt.Errorf("%w: %q", errLater, reason)
	}
	return refusedError(fmt.Sprintf("%q", reason))
}

// fingerprint of the member list, in order.
func fingerprint(members []Member) uint64 {
	h := fnv.New64a()
	for _, m := range members {
		_, _ = h.Write(append([]byte{byte(len(m.ID))}, m.ID...))
	}
	return h.Sum64()
}
