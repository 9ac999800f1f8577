package transport

import (
	"time"

	"lorad/ca"
)

// Proto names what is spoken on a connection; it is the ALPN protocol of the handshake.
type Proto string

// The protocols: the first four between nodes, the others for guests (see doors).
const (
	GRPC   Proto = "h2"             // Control, Coordination, Peer and Enrol
	Raft   Proto = "lorad-raft/1"   // hashicorp/raft's own stream
	Gossip Proto = "lorad-gossip/1" // memberlist's packets and streams
	Reduce Proto = "lorad-reduce/1" // the all-reduce

	Enrol  Proto = "lorad-enrol/1"  // gRPC for strangers: only the server has a certificate
	Renew  Proto = "lorad-renew/1"  // gRPC for nodes whose certificate may have ended
	People Proto = "lorad-people/1" // gRPC for people: only the server has a certificate, each call brings a token
	HTTP   Proto = "http/1.1"       // the same for browsers and other people's programs
)

// protos is all of them.
var protos = []Proto{GRPC, Raft, Gossip, Reduce, Enrol, Renew, People, HTTP}

// roles says who may open a connection of a protocol between nodes.
var roles = map[Proto][]ca.Role{
	GRPC:   {ca.Worker, ca.Voter, ca.Witness},
	Raft:   {ca.Voter, ca.Witness},
	Gossip: {ca.Worker, ca.Voter, ca.Witness},
	Reduce: {ca.Worker, ca.Voter},
}

// A door is a protocol that guests come in by: those who have no certificate, or one that has ended. They are few at
// once, and a newcomer takes the place of the oldest. Patience is how long they have from handshake to hanging up, or
// to showing who they are.
type door struct {
	max      int
	patience time.Duration
}

var doors = map[Proto]door{
	Enrol:  {64, 60 * time.Second},
	Renew:  {64, 60 * time.Second},
	People: {128, 10 * time.Second},
	HTTP:   {128, 10 * time.Second},
}
