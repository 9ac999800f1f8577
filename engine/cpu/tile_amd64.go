package cpu

//go:noescape
func tile8x32(k int, a *float32, as, ak int, b *float32, bs int, c *float32, cs int, acc bool, next *float32)

//go:noescape
func tile8x16(k int, a *float32, as, ak int, b *float32, bs int, c *float32, cs int, acc bool, next *float32)

//go:noescape
func tile16x16(k int, a *float32, as, ak int, b *float32, bs int, c *float32, cs int, acc bool, next *float32)

//go:noescape
func tile6x16(k int, a *float32, as, ak int, b *float32, bs int, c *float32, cs int, acc bool, next *float32)

//go:noescape
func transpose16(k int, src *float32, ld int, dst *float32, ds int)

//go:noescape
func transpose8(k int, src *float32, ld int, dst *float32, ds int)

//go:noescape
func tile1x32(k int, a *float32, ak int, b *float32, bs int, c *float32, acc bool)

//go:noescape
func tile1x16(k int, a *float32, ak int, b *float32, bs int, c *float32, acc bool)

//go:noescape
func tile8x32pairs(k int, a *float32, as, ak int, b *float32, bs int, c *float32, cs int, acc bool, next *float32)

//go:noescape
func tile1x32pairs(k int, a *float32, ak int, b *float32, bs int, c *float32, acc bool)

//go:noescape
func roundPairs(n int, dst, src *float32)

//go:noescape
func weavePairs(k int, dst, src *float32)

//go:noescape
func turnPairs(k int, src, dst *float32)
