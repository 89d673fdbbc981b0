// Fruit, bread board, basket and a glass jug on a wooden table, lit by a window from the left.
// Written for this project; no include files. y is up, one unit is about 5 cm.
#version 3.7;
global_settings {
  assumed_gamma 1.0
  max_trace_level 7
  adc_bailout 0.02
  radiosity { pretrace_start 0.08 pretrace_end 0.02 count 50 error_bound 0.8 recursion_limit 1 brightness 1.0 }
}
#default { finish { ambient 0 diffuse 0.8 } }
#declare Rnd = seed(41);

camera {
  location <1.2, 6.4, -15.5>
  look_at <0.1, 1.75, 0>
  right x * image_width / image_height
  angle 41
  aperture 0.28 focal_point <0.3, 1.3, -1.6> blur_samples 4
}

// Window: a large soft source, and a weak sky fill from behind the camera.
light_source {
  <-14, 12, -7> rgb <1.0, 0.94, 0.84> * 1.75
  area_light <0, 7, 0>, <4, 0, -6>, 4, 4 adaptive 0 jitter
}
light_source { <9, 9, -18> rgb <0.55, 0.68, 0.9> * 0.18 shadowless }
sphere { 0, 200 hollow pigment { rgb 1 } finish { diffuse 0 emission <0.13, 0.15, 0.19> } }
box { <-19, 4, -16>, <-18.9, 17, -3> pigment { rgb 1 } finish { diffuse 0 emission <1.6, 1.7, 1.9> } }

// ---- table: five planks with their own grain ----
#macro Plank(Shade)
  texture {
    pigment {
      wood turbulence <0.09, 0.05, 0.4> octaves 4
      color_map {
        [0.0 rgb <0.36, 0.19, 0.085> * Shade] [0.45 rgb <0.27, 0.13, 0.055> * Shade]
        [0.75 rgb <0.20, 0.09, 0.035> * Shade] [0.82 rgb <0.11, 0.048, 0.02> * Shade]
        [1.0 rgb <0.33, 0.17, 0.075> * Shade]
      }
      scale <0.34, 0.34, 3> rotate <2.5, 90 + 3, 1.5> translate <rand(Rnd) * 30, 1.5 + rand(Rnd) * 3, rand(Rnd) * 30>
    }
    normal { granite 0.12 scale <6, 0.5, 0.12> }
    finish { diffuse 0.75 specular 0.14 roughness 0.025 reflection { 0.01, 0.10 fresnel off } }
  }
  texture {
    pigment { granite color_map { [0 rgbt <0.05, 0.02, 0.01, 0.35>] [0.28 rgbt <0.1, 0.05, 0.03, 1>] [1 rgbt 1] } scale <5, 0.4, 0.22> translate rand(Rnd) * 9 }
    finish { diffuse 0.7 specular 0.05 roughness 0.03 }
  }
#end
#for (I, 0, 6)
  superellipsoid {
    <0.02, 0.02> scale <16, 0.3, 1.14> translate <rand(Rnd) * 0.4, -0.31 - 0.02 * rand(Rnd), -6.4 + I * 2.3>
    Plank(0.85 + 0.35 * rand(Rnd))
  }
#end

// ---- plaster wall ----
plane {
  -z, -13
  pigment { bozo turbulence 0.8 octaves 6 color_map { [0 rgb <0.23, 0.27, 0.26>] [1 rgb <0.34, 0.37, 0.34>] } scale 5 }
  normal { granite 0.28 scale 5 }
}

// ---- checked linen cloth over the left part of the table ----
#declare Noise = function { pattern { bozo scale 1 } }
height_field {
  function 300, 300 {
    0.08 + 0.5 * pow(Noise(x * 3 + 3.1, 0, y * 5.2 + 1.7), 2) + 0.16 * Noise(x * 8, 4, y * 7)
  }
  smooth
  scale <9.5, 0.7, 9.6> translate <-9, 0, -5.8>
  texture {
    pigment {
      function { (select(sin(x * 7.2) + 0.25, 0, 1) + select(sin(z * 7.2) + 0.25, 0, 1)) / 2.001 }
      pigment_map {
        [0.0 rgb <0.78, 0.75, 0.66>] [0.33 rgb <0.78, 0.75, 0.66>]
        [0.33 rgb <0.36, 0.45, 0.58>] [0.67 rgb <0.36, 0.45, 0.58>]
        [0.67 rgb <0.09, 0.17, 0.34>] [1.0 rgb <0.09, 0.17, 0.34>]
      }
    }
    normal { function { 0.5 + 0.25 * (sin(x * 95) * cos(z * 95)) + 0.25 * Noise(x * 40, 0, z * 40) } 0.9 }
    finish { diffuse 0.75 }
  }
  rotate -y * 14
}

// ---- fruit ----
#macro AppleSkin(Red)
  texture {
    pigment {
      gradient y triangle_wave
      pigment_map {
        [0.0 bozo color_map { [0 rgb <0.62, 0.50, 0.10>] [1 rgb <0.50, 0.44, 0.08>] } scale 0.2]
        [0.35 bozo turbulence 0.3 color_map { [0 rgb Red] [0.6 rgb Red * 0.75] [1 rgb <0.60, 0.27, 0.06>] } scale <0.16, 1.4, 0.16>]
        [0.8 bozo turbulence 0.3 color_map { [0 rgb Red] [0.75 rgb Red * 0.6] [1 rgb <0.55, 0.22, 0.06>] } scale <0.11, 1.8, 0.11>]
        [1.0 bozo color_map { [0 rgb <0.55, 0.40, 0.09>] [1 rgb Red * 0.9] } scale <0.1, 0.8, 0.1>]
      }
      scale 1.72 warp { turbulence 0.12 octaves 3 }
    }
    normal { bumps 0.06 scale 0.2 }
    finish { diffuse 0.75 specular 0.35 roughness 0.012 reflection { 0.0, 0.12 } }
  }
  texture {
    pigment { crackle form <1, 0, 0> color_map { [0 rgb <0.75, 0.62, 0.35>] [0.10 rgb <0.75, 0.62, 0.35>] [0.13 rgbt 1] [1 rgbt 1] } scale 0.13 }
    finish { diffuse 0.7 specular 0.3 roughness 0.012 }
  }
#end
#macro Stem(Length)
  sphere_sweep {
    cubic_spline 5, <-0.02, -0.3, 0>, 0.05, <0, 0, 0>, 0.045, <0.05, Length * 0.5, 0.02>, 0.04, <0.17, Length, 0.05>, 0.065,
    <0.3, Length * 1.4, 0.1>, 0.05
    pigment { granite color_map { [0 rgb <0.11, 0.06, 0.03>] [1 rgb <0.24, 0.15, 0.07>] } scale 0.2 }
  }
#end
#macro Apple(Red)
  union {
    lathe {
      cubic_spline 12,
      <-0.2, 1.52>, <0, 1.30>, <0.16, 1.46>, <0.46, 1.66>, <0.82, 1.56>, <1.04, 1.06>, <0.92, 0.52>, <0.6, 0.12>, <0.36, 0.02>,
      <0.18, 0.08>, <0, 0.2>, <-0.2, 0.3>
      AppleSkin(Red)
    }
    object { Stem(0.55) translate y * 1.3 }
  }
#end
#macro Pear()
  union {
    lathe {
      cubic_spline 12,
      <-0.3, 0.2>, <0, 0.12>, <0.3, 0.0>, <0.78, 0.22>, <1.02, 0.75>, <0.93, 1.25>, <0.66, 1.75>, <0.47, 2.2>, <0.36, 2.5>,
      <0.16, 2.64>, <0, 2.58>, <-0.2, 2.4>
      texture {
        pigment {
          gradient x
          color_map { [0 rgb <0.40, 0.44, 0.10>] [0.4 rgb <0.55, 0.50, 0.12>] [0.8 rgb <0.60, 0.38, 0.10>] [1 rgb <0.55, 0.25, 0.09>] }
          scale 2.2 translate x * 1.1 warp { turbulence 0.3 octaves 4 }
        }
        normal { bumps 0.12 scale 0.12 }
        finish { diffuse 0.75 specular 0.16 roughness 0.03 }
      }
      texture {
        pigment { granite color_map { [0 rgbt <0.24, 0.14, 0.05, 0.1>] [0.24 rgbt <0.28, 0.17, 0.06, 0.4>] [0.33 rgbt 1] [1 rgbt 1] } scale 0.55 }
        finish { diffuse 0.7 specular 0.12 roughness 0.03 }
      }
    }
    object { Stem(0.6) translate y * 2.55 }
  }
#end
#macro Lemon()
  lathe {
    cubic_spline 10,
    <-0.1, -1.15>, <0, -1.08>, <0.16, -1.0>, <0.52, -0.72>, <0.74, 0>, <0.56, 0.66>, <0.22, 0.95>, <0.12, 1.1>, <0, 1.14>, <-0.1, 1.1>
    pigment { bozo color_map { [0 rgb <0.82, 0.60, 0.05>] [1 rgb <0.74, 0.55, 0.06>] } scale 0.5 }
    normal { crackle 0.35 scale 0.075 }
    finish { diffuse 0.8 specular 0.3 roughness 0.02 }
    rotate z * 90
  }
#end
object { Apple(<0.42, 0.035, 0.03>) rotate <6, 40, -8> scale 1.06 translate <-1.5, 0.26, -2.4> }
object { Apple(<0.48, 0.06, 0.035>) rotate <0, 200, -62> scale 1.0 translate <0.2, 0.75, -3.7> }
object { Pear() rotate <-3, 20, 5> scale 1.12 translate <-3.4, 0.2, -0.9> }
object { Pear() rotate <0, 150, 0> rotate z * 83 rotate y * -32 translate <4.7, 0.98, -2.7> }
object { Lemon() rotate y * 28 translate <2.5, 0.72, -3.3> }
object { Lemon() rotate <20, -50, 10> translate <-4.6, 0.95, -3.1> }

// half a lemon, cut face towards the camera
#declare Segments = function { abs(sin(atan2(y, x) * 4.5)) }
union {
  difference {
    sphere { 0, 0.76 }
    plane { z, -0.02 }
    pigment { rgb <0.80, 0.60, 0.06> } normal { crackle 0.35 scale 0.075 } finish { specular 0.3 roughness 0.02 }
  }
  cylinder {
    <0, 0, -0.03>, <0, 0, 0.03>, 0.755
    texture {
      pigment {
        function { min(0.999, min(Segments(x, y, z) * 5 * sqrt(x * x + y * y), 12 * max(0, 0.64 - sqrt(x * x + y * y)))) }
        color_map { [0 rgb <0.84, 0.79, 0.56>] [0.5 rgb <0.86, 0.78, 0.45>] [0.75 rgb <0.84, 0.64, 0.14>] [1 rgb <0.82, 0.60, 0.10>] }
      }
      normal { bumps 0.4 scale <0.05, 0.05, 0.05> }
      finish { specular 0.5 roughness 0.01 diffuse 0.8 }
    }
  }
  rotate <24, -14, 30> translate <2.6, 0.75, -5.6>
}

// ---- wicker basket with grapes ----
#declare Wicker = texture {
  pigment { bozo color_map { [0 rgb <0.42, 0.25, 0.10>] [1 rgb <0.62, 0.42, 0.20>] } scale <0.4, 0.1, 0.4> }
  normal { granite 0.2 scale 0.3 }
  finish { diffuse 0.75 specular 0.15 roughness 0.03 }
}
#declare Stakes = 34;
#declare BasketRadius = function (h) { 2.1 + 0.34 * h - 0.06 * h * h }
#macro Strand(Row, Thick)
  #local H = 0.12 + Row * 0.165;
  #local Steps = Stakes * 5;
  union {
    #for (K, 0, Steps - 1)
      #local A = K * 2 * pi / Steps;
      #local B = (K + 1) * 2 * pi / Steps;
      #local Ra = BasketRadius(H) + 0.085 * cos(A * Stakes / 2 + pi * Row);
      #local Rb = BasketRadius(H) + 0.085 * cos(B * Stakes / 2 + pi * Row);
      cylinder { <Ra * cos(A), H, Ra * sin(A)>, <Rb * cos(B), H, Rb * sin(B)>, Thick }
      sphere { <Ra * cos(A), H, Ra * sin(A)>, Thick }
    #end
  }
#end
#declare Grape = sphere {
  0, 0.33
  texture {
    pigment { bozo color_map { [0 rgb <0.10, 0.02, 0.07>] [0.6 rgb <0.07, 0.02, 0.10>] [1 rgb <0.16, 0.05, 0.10>] } scale 0.3 }
    finish { diffuse 0.8 specular 0.5 roughness 0.015 reflection { 0, 0.15 } }
  }
  texture {
    pigment { bozo turbulence 0.5 color_map { [0 rgbt <0.45, 0.47, 0.62, 0.55>] [0.5 rgbt <0.4, 0.42, 0.6, 0.8>] [0.7 rgbt 1] [1 rgbt 1] } scale 0.32 }
  }
}
union {
  #for (Row, 0, 10) object { Strand(Row, 0.085) } #end
  #for (K, 0, Stakes - 1)
    #declare A = (K + 0.5) * 4 * pi / Stakes;
    cylinder { <BasketRadius(0) * cos(A), 0.02, BasketRadius(0) * sin(A)>, <BasketRadius(1.9) * cos(A), 1.95, BasketRadius(1.9) * sin(A)>, 0.06 }
  #end
  #for (K, 0, 119)
    #declare A = K * 2 * pi / 120;
    #declare R = BasketRadius(2.0);
    cylinder {
      <(R + 0.09 * cos(A * 30)) * cos(A), 2.0 + 0.08 * sin(A * 30), (R + 0.09 * cos(A * 30)) * sin(A)>,
      <(R - 0.09 * cos(A * 30)) * cos(A + 0.16), 2.0 - 0.08 * sin(A * 30), (R - 0.09 * cos(A * 30)) * sin(A + 0.16)>, 0.08
    }
  #end
  cylinder { <0, 0.05, 0>, <0, 0.15, 0>, 2.1 }
  texture { Wicker }
  translate <1.0, 0.05, 1.5>
}
#declare Placed = array[140]
#declare Count = 0;
#macro PlaceGrape(Point, Gap)
  #local Free = 1;
  #for (J, 0, Count - 1) #if (vlength(Placed[J] - Point) < Gap) #local Free = 0; #break #end #end
  #if (Free & Count < 140)
    #declare Placed[Count] = Point;
    #declare Count = Count + 1;
    object { Grape rotate 360 * <rand(Rnd), rand(Rnd), rand(Rnd)> scale <0.95, 1, 0.95> + 0.1 * rand(Rnd) translate Point }
  #end
#end
union {
  #for (K, 0, 900)
    #declare A = rand(Rnd) * 2 * pi;
    #declare R = 2.15 * sqrt(rand(Rnd));
    PlaceGrape(<1.0 + R * cos(A), 1.5 + 1.2 * (1 - R * R / 6) * pow(rand(Rnd), 0.4), 1.55 + R * sin(A)>, 0.58)
  #end
}
// a bunch hanging over the rim
union {
  #for (K, 0, 250)
    #declare T = rand(Rnd);
    PlaceGrape(<0.4 + 0.85 * (1 - T) * (rand(Rnd) * 2 - 1), 2.4 - 1.85 * T, -0.95 - 0.55 * T - 0.4 * rand(Rnd)>, 0.55)
  #end
}

// ---- glass jug with water ----
#declare JugOut = lathe {
  cubic_spline 11,
  <0, -0.2>, <0, 0>, <0.9, 0.02>, <1.15, 0.3>, <1.22, 1.2>, <1.05, 2.3>, <0.72, 3.2>, <0.70, 3.8>, <0.88, 4.35>, <0, 4.36>, <0, 4.4>
}
#declare JugIn = lathe {
  cubic_spline 10,
  <0, 0>, <0, 0.22>, <0.85, 0.25>, <1.05, 0.45>, <1.12, 1.2>, <0.95, 2.3>, <0.62, 3.2>, <0.60, 3.8>, <0.80, 4.5>, <0, 4.6>
}
#declare Glass = material {
  texture { pigment { rgbf <0.96, 0.99, 0.97, 0.97> } finish { diffuse 0 specular 0.9 roughness 0.002 reflection { 0.02, 1 fresnel } conserve_energy } }
  interior { ior 1.5 fade_distance 3 fade_power 1001 fade_color <0.7, 0.9, 0.82> }
}
union {
  difference { object { JugOut } object { JugIn } material { Glass } }
  intersection {
    object { JugIn scale <0.995, 1, 0.995> }
    box { <-2, 0.2, -2>, <2, 2.1, 2> }
    material {
      texture { pigment { rgbf <0.97, 0.98, 1, 0.98> } finish { diffuse 0 specular 0.5 roughness 0.003 reflection { 0.01, 1 fresnel } conserve_energy } }
      interior { ior 1.33 }
    }
  }
  sphere_sweep {
    cubic_spline 7, <0.6, 4.5, 0>, 0.12, <0.78, 4.0, 0>, 0.13, <1.5, 4.0, 0>, 0.12, <1.85, 3.1, 0>, 0.12, <1.6, 2.2, 0>, 0.12,
    <1.12, 1.75, 0>, 0.14, <0.9, 1.5, 0>, 0.1
    material { Glass }
  }
  scale 1.12 rotate y * -25 translate <5.3, 0.02, 1.6>
}

// ---- stoneware crock with a painted band, wooden spoons ----
#declare Crock = lathe {
  cubic_spline 14,
  <0, -0.3>, <0, 0>, <1.1, 0.0>, <1.28, 0.12>, <1.42, 1.2>, <1.40, 2.5>, <1.22, 2.95>, <1.32, 3.2>, <1.26, 3.3>, <1.12, 3.2>, <1.08, 2.6>,
  <1.1, 0.5>, <0, 0.3>, <-0.5, 0.3>
}
object {
  Crock
  texture {
    pigment {
      gradient y
      pigment_map {
        [0.0 granite color_map { [0 rgb <0.30, 0.19, 0.11>] [1 rgb <0.47, 0.33, 0.21>] } scale 0.3]
        [0.13 granite color_map { [0 rgb <0.34, 0.22, 0.13>] [1 rgb <0.50, 0.36, 0.23>] } scale 0.3]
        [0.17 granite color_map { [0 rgb <0.50, 0.46, 0.37>] [0.3 rgb <0.62, 0.59, 0.50>] [1 rgb <0.68, 0.65, 0.56>] } scale 0.5]
        [1.0 granite color_map { [0 rgb <0.52, 0.48, 0.39>] [0.3 rgb <0.63, 0.60, 0.51>] [1 rgb <0.70, 0.66, 0.57>] } scale 0.5]
      }
      scale 3.4 warp { turbulence 0.05 }
    }
    normal { bumps 0.12 scale <0.6, 0.1, 0.6> }
    finish { diffuse 0.75 specular 0.35 roughness 0.012 reflection { 0.0, 0.12 } }
  }
  texture {
    pigment {
      function { select(abs(y - 2.0) - 0.42, max(0.5 + 0.5 * sin(atan2(z, x) * 22 + 9 * y), select(abs(abs(y - 2.0) - 0.36) - 0.035, 1, 0)), 0) }
      color_map { [0 rgbt 1] [0.66 rgbt 1] [0.74 rgbt <0.06, 0.11, 0.30, 0.1>] [1 rgbt <0.04, 0.08, 0.26, 0.05>] }
      warp { turbulence 0.02 }
    }
    finish { diffuse 0.75 specular 0.3 roughness 0.012 }
  }
  translate <-4.4, 0.02, 2.6>
}
#macro Spoon(Tilt, Turn)
  union {
    cylinder { <0, 0, 0>, <0, 5.1, 0>, 0.11 }
    difference {
      sphere { 0, 1 scale <0.48, 0.72, 0.16> }
      sphere { 0, 1 scale <0.38, 0.6, 0.14> translate -z * 0.13 }
      translate y * 5.55
    }
    pigment { wood turbulence 0.06 color_map { [0 rgb <0.55, 0.36, 0.18>] [1 rgb <0.40, 0.24, 0.10>] } scale 0.1 rotate x * 87 }
    finish { specular 0.08 roughness 0.05 }
    rotate z * Tilt rotate y * Turn translate <-4.4, 0.5, 2.6>
  }
#end
object { Spoon(8, 10) }
object { Spoon(-9, -25) }
object { Spoon(-3, 60) }

// ---- leaves beside the fruit ----
#macro Leaf(Size)
  intersection {
    cylinder { <0, -0.6, 0>, <0, 0.6, 0>, 1.25 translate x * 0.85 }
    cylinder { <0, -0.6, 0>, <0, 0.6, 0>, 1.25 translate -x * 0.85 }
    difference { sphere { 0, 2.4 translate y * -2.2 } sphere { 0, 2.39 translate y * -2.2 } }
    texture {
      pigment { function { abs(sin((z + abs(x) * 1.1) * 17)) * min(1, abs(x) * 22) } color_map { [0 rgb <0.34, 0.40, 0.12>] [0.2 rgb <0.12, 0.21, 0.04>] [1 rgb <0.07, 0.15, 0.025>] } }
      normal { wrinkles 0.4 scale 0.3 }
      finish { diffuse 0.8 specular 0.25 roughness 0.02 }
    }
    scale Size
  }
#end
object { Leaf(0.9) rotate <12, 70, 8> translate <-0.2, 0.12, -5.0> }
object { Leaf(0.8) rotate <-6, 125, -8> translate <-1.4, 0.32, -4.6> }
object { Leaf(0.75) rotate <0, 20, 14> translate <-1.15, 2.05, -2.2> }
