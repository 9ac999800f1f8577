package eval

import "lorad/internal/world"

// Legal is the domain of the embedded legal records: the names of the generated world.
func Legal() Domain {
	p := world.Names()
	d := Domain{Names: map[string]bool{}, Common: map[string]bool{}}
	for _, pool := range [][]string{p.Given, p.Surnames, p.Firms, p.Places} {
		for _, n := range pool {
			d.Names[n] = true
		}
	}
	for _, w := range world.CommonWords() {
		d.Common[w] = true
	}
	return d
}
