# Shared by all plots: colours, dashes, sizes. Put before each script by `kvgauge plot`.
set encoding utf8
set datafile columnheaders
# Okabe and Ito's colours without the yellow, which is too light on white, and a grey.
colours = '#0072B2 #D55E00 #009E73 #CC79A7 #E69F00 #56B4E9 #000000 #777777'
points = '7 5 9 13 11 15 6 4 8 12'
colour(i) = word(colours, int(i) % 8 + 1)
shape(i) = int(word(points, int(i) % 10 + 1))
dash(i) = (int(i) / 8 + int(i)) % 4 + 1
data = name.'.dat'
set grid back lc rgb '#dddddd' lw 1
set border 3 lc rgb '#555555'
set tics nomirror out textcolor rgb '#222222'
set key off
set title font ',17' noenhanced
svg = "svg size 1000,600 dynamic font 'DejaVu Sans,14' background '#ffffff'"
png = "pngcairo size 2000,1200 font 'DejaVu Sans,14' fontscale 1.7 linewidth 2 pointscale 2 background '#ffffff'"

