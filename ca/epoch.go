package ca

import (
	"crypto/x509"
	"strconv"
	"strings"
)

// An epoch of a cluster begins when it is recovered from the loss of its majority. It is part of the cluster's id, so
// that no certificate of an older epoch is accepted, in either direction and by no protocol: two halves of a cluster
// that both went on can never be merged again, which is the whole point.

// Epoch is the number of a cluster's epoch: 1 unless it was ever recovered.
func Epoch(clusterID string) uint64 {
	_, n := cutEpoch(clusterID)
	return n
}

// NextEpoch is the id of the cluster after one more recovery.
func NextEpoch(clusterID string) string {
	base, n := cutEpoch(clusterID)
	return base + "-" + strconv.FormatUint(n+1, 10)
}

func cutEpoch(clusterID string) (base string, n uint64) {
	i := strings.LastIndexByte(clusterID, '-')
	n, err := strconv.ParseUint(clusterID[i+1:], 10, 64)
	if i < 1 || err != nil || n < 2 {
		return clusterID, 1
	}
	return clusterID[:i], n
}

// Superseded reports whether c is the certificate of a node of a later epoch of our own cluster: signed with the key of
// our authority.
func (id *Identity) Superseded(c *x509.Certificate) bool {
	s, err := subjectOf(c)
	if err != nil || id.ca.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) != nil {
		return false
	}
	ours, n := cutEpoch(id.self.ClusterID)
	theirs, m := cutEpoch(s.ClusterID)
	return ours == theirs && m > n
}
