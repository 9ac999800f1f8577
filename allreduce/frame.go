package allreduce

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// OpID names one collective operation. It is in the header of every frame.
type OpID struct {
	Run, Generation, Step uint64
	Kind, Attempt         uint32 // the caller's: which collective of the step, which try
}

func (o OpID) String() string {
	return fmt.Sprintf("run %x generation %d step %d kind %d attempt %d", o.Run, o.Generation, o.Step, o.Kind, o.Attempt)
}

// Phase is where in an operation a frame belongs, or where an operation was when it was aborted.
type Phase uint8

// The phases.
const (
	Idle          Phase = iota // between operations
	ReduceScatter              // partial sums of int64 go round
	AllGather                  // finished f32 chunks go round
	Blobs                      // Group.AllGather
)

func (p Phase) String() string {
	switch p {
	case Idle:
		return "idle"
	case ReduceScatter:
		return "reduce-scatter"
	case AllGather:
		return "all-gather"
	case Blobs:
		return "all-gather of blobs"
	}
	return fmt.Sprintf("phase %d", uint8(p))
}

// FrameType says what a frame is for.
type FrameType uint8

// The types of frames. Bye and Abort are the last frame of their direction.
const (
	Data  FrameType = 1 + iota
	Beat            // a heartbeat: nothing else was written for a while
	Bye             // the sender leaves in good order
	Abort           // the sender's group is dead; the payload names the suspect
)

// Header places a frame. Its byte form is HeaderSize bytes, little-endian:
//
//	 0 magic "LRAR"     4 version 2    5 type     6 phase    7 zero
//	 8 run             16 generation  24 step    32 kind    36 attempt
//	40 hop             44 segment     48 plan    52 length of the payload
//	56 CRC-32C of the 56 bytes before and the payload
type Header struct {
	Type    FrameType
	Phase   Phase
	Op      OpID
	Hop     uint32 // how far round the ring, 0..2(N-1)-1
	Segment uint32 // of the hop's chunk
	Plan    uint32 // fingerprint of the vector's shape
	Length  uint32 // bytes of payload
}

// Sizes of a frame.
const (
	HeaderSize = 60
	MaxPayload = 256 << 10
	crcAt      = 56
	version    = 2
)

const magic = 'L' | 'R'<<8 | 'A'<<16 | 'R'<<24

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// What a reader finds wrong with a frame.
var (
	ErrMagic    = errors.New("not a lorad all-reduce frame")
	ErrVersion  = errors.New("frame of another protocol version: run the same lorad release on every node")
	ErrTooLarge = errors.New("frame longer than its bound")
	ErrChecksum = errors.New("frame corrupted in transit: CRC-32C mismatch")
)

// Put writes the header of a frame with this payload; Length and the checksum are filled in.
func (h Header) Put(dst *[HeaderSize]byte, payload []byte) {
	le := binary.LittleEndian
	le.PutUint32(dst[0:], magic)
	dst[4], dst[5], dst[6], dst[7] = version, byte(h.Type), byte(h.Phase), 0
	le.PutUint64(dst[8:], h.Op.Run)
	le.PutUint64(dst[16:], h.Op.Generation)
	le.PutUint64(dst[24:], h.Op.Step)
	le.PutUint32(dst[32:], h.Op.Kind)
	le.PutUint32(dst[36:], h.Op.Attempt)
	le.PutUint32(dst[40:], h.Hop)
	le.PutUint32(dst[44:], h.Segment)
	le.PutUint32(dst[48:], h.Plan)
	le.PutUint32(dst[52:], uint32(len(payload)))
	le.PutUint32(dst[crcAt:], checksum(dst, payload))
}

func checksum(hdr *[HeaderSize]byte, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(hdr[:crcAt], castagnoli), castagnoli, payload)
}

// ParseHeader reads a header and checks everything but the checksum. Length is at most MaxPayload.
func ParseHeader(b *[HeaderSize]byte) (Header, error) {
	le := binary.LittleEndian
	h := Header{
		Type: FrameType(b[5]), Phase: Phase(b[6]),
		Op: OpID{
			Run: le.Uint64(b[8:]), Generation: le.Uint64(b[16:]), Step: le.Uint64(b[24:]),
			Kind: le.Uint32(b[32:]), Attempt: le.Uint32(b[36:]),
		},
		Hop: le.Uint32(b[40:]), Segment: le.Uint32(b[44:]), Plan: le.Uint32(b[48:]), Length: le.Uint32(b[52:]),
	}
	switch {
	case le.Uint32(b[0:]) != magic:
		return h, ErrMagic
	case b[4] != version:
		return h, fmt.Errorf("%w: got %d, want %d", ErrVersion, b[4], version)
	case h.Type < Data || h.Type > Abort || h.Phase > Blobs || b[7] != 0:
		return h, fmt.Errorf("%w: type %d phase %d", ErrMagic, h.Type, h.Phase)
	case h.Length > MaxPayload:
		return h, fmt.Errorf("%w: %d bytes", ErrTooLarge, h.Length)
	}
	return h, nil
}

// ReadFrame reads one frame from r. The header's bytes go to hdr, the payload to the front of buf, whose length
// bounds it; nothing is allocated. io.EOF means the stream ended between two frames.
func ReadFrame(r io.Reader, hdr *[HeaderSize]byte, buf []byte) (Header, []byte, error) {
	if _, err := io.ReadFull(r, hdr[:]); err != nil {
		return Header{}, nil, err
	}
	h, err := ParseHeader(hdr)
	if err != nil {
		return h, nil, err
	}
	if int(h.Length) > len(buf) {
		return h, nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, h.Length)
	}
	payload := buf[:h.Length]
	if _, err := io.ReadFull(r, payload); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return h, nil, err
	}
	if checksum(hdr, payload) != binary.LittleEndian.Uint32(hdr[crcAt:]) {
		return h, nil, ErrChecksum
	}
	return h, payload, nil
}

// FenceError says that a frame arrived that is not the next of the operation in progress.
type FenceError struct{ Want, Got Header }

func (e *FenceError) Error() string {
	switch {
	case e.Want.Op != e.Got.Op:
		return fmt.Sprintf("fenced: a frame of %v arrived during %v", e.Got.Op, e.Want.Op)
	case e.Want.Plan != e.Got.Plan && e.Want.Phase == e.Got.Phase:
		return "fenced: the sender cuts the vector differently: parameters, micro-batches, unit or members differ between the nodes"
	}
	return fmt.Sprintf("fenced: frame %v hop %d segment %d arrived, expected %v hop %d segment %d",
		e.Got.Phase, e.Got.Hop, e.Got.Segment, e.Want.Phase, e.Want.Hop, e.Want.Segment)
}
